"""A teacher that is shared out over processes answers as the whole one does, however often each process asks it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise import config
from counterpoise.errors import ConfigError, DataError, ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.teachers import identity, store
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.sharded import blocks, require_several, share_out

CPU = torch.device("cpu")
DIGITS = {"source": "digits", "options": {"train_size": 1296}}  # 501 in val: 250 and 251, which is one call and two


class Scaled(nn.Module):
    """A block of odd sizes and a scalar."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.scale * self.norm(self.conv(images)).relu()


class Apart(nn.Module):
    """Takes the weights of its blocks without calling these."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(27, 27) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(images.flatten(1)[:, :27], self.parts[1].weight)


def network(seed: int = 0) -> VisionModel:
    torch.manual_seed(seed)
    stages = [nn.Sequential(Scaled(25), Scaled(25), Scaled(25)) for _ in range(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(25, 7)]
    net = nn.Sequential(nn.Conv2d(3, 25, 3), *stages, *head)
    return VisionModel(net, name="own", num_classes=7, stages=("1", "2"))


def pictures(rank: int) -> list[Tensor]:
    """Two batches for the first process, four for the second."""
    generator = torch.Generator().manual_seed(rank)
    sizes = range(2, 4 + 2 * rank)
    return [torch.randint(0, 256, (n, 3, 9, 8 + rank), dtype=torch.uint8, generator=generator) for n in sizes]


def ask(teacher: LiveTeacher, images: list[Tensor], fails: bool = False) -> list[Tensor]:
    answers = []
    with teacher.model.together():
        for batch in images:
            answers.append(teacher(batch).logits)
            if fails:
                raise DataError("cannot be read")
    return answers


def shared_out(model: VisionModel, images: Tensor) -> LiveTeacher:
    return share_out(model.eval(), CPU, torch.float32, identity.of(model, torch.float32), images)


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    images = pictures(rank)
    found: dict[str, Any] = {}
    for seed, kind in ((rank, network), (0, lambda seed: catalog.build(Apart(), num_classes=27, input_size=3))):
        torch.manual_seed(0)
        with pytest.raises(ModelError) as refused:
            shared_out(kind(seed), images[0])
        found[f"refused {kind is network}"] = str(refused.value)
    teacher = shared_out(network(), images[0])
    weights = (getattr(parameter, "_local_tensor", parameter) for parameter in teacher.model.net.parameters())
    found["bytes"] = sum(tensor.untyped_storage().nbytes() for tensor in weights)
    found["note"] = teacher.model.notes[-1]
    found["logits"] = ask(teacher, images)
    found["none"] = ask(teacher, images if rank else [])
    with pytest.raises(DataError) if rank == 0 else torch.no_grad():
        ask(teacher, images, fails=rank == 0)
    outputs = teacher(images[1], ["@0", "2.1.conv"])
    found["features"] = [outputs.logits, *outputs.features.values()]
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow  # for what it imports
def test_two_processes_answer_as_one_does_and_keep_half_of_the_weights_each(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")  # torch is imported already
    children = [fork.Process(target=one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    whole = LiveTeacher(network(), CPU)
    size = sum(p.numel() * p.element_size() for p in whole.model.parameters())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["bytes"] == pytest.approx(size / 2, rel=0.05)  # 25 rows are 13 and 12
        assert f"over 2 processes: of {size / 1e6:.2f} MB" in found["note"]
        assert "in 6 blocks" in found["note"]
        expected = [whole(batch).logits for batch in pictures(rank)]
        features = whole(pictures(rank)[1], ["@0", "2.1.conv"])
        for name, answers in (("logits", expected), ("features", [features.logits, *features.features.values()])):
            assert len(found[name]) == len(answers)
            assert all(map(torch.equal, found[name], answers)), name
        assert len(found["none"]) == 4 * rank
        assert "process 1 has read another teacher than process 0" in found["refused True"]
        assert "cannot be computed from shares: " in found["refused False"]


def test_blocks_are_what_a_network_repeats_inner_ones_first() -> None:
    found = blocks(network().net)
    assert [type(block) for block in found] == [Scaled] * 6
    nested = nn.Sequential(*(nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))) for _ in range(2)), nn.Linear(4, 99))
    assert [block.out_features for block in blocks(nested)] == [4] * 6 + [99]  # type: ignore[union-attr]
    assert not blocks(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)))


def test_one_process_has_nothing_to_share_out() -> None:
    with pytest.raises(ConfigError, match=r"several processes, and here is one: start them with torchrun"):
        require_several(1, CPU)


NETWORKS = """
from torch import nn


def make(num_classes):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
    net.input_size = 8
    return net


def dense(num_classes=11):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
"""


def values(folder: Path, checkpoint: Path, **changed: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "data": {**DIGITS, "workers": 0},
        "teacher": {"checkpoint": str(checkpoint), "accept_chance": True},
        "student": {"model": f"{folder}/networks.py:make"},
        "train": {"epochs": 2, "batch_size": 50, "device": "cpu", "precision": "fp32"},
    }
    return config.merge(common, changed)


@pytest.fixture(scope="session")
def work(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, and a teacher of digits."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "networks.py").write_text(NETWORKS)
    digits = ["--data.source", "digits", "--data.options.train_size", "1296", "--student.model", "digits/cnn_8_16"]
    host.run(["train", *digits, *FLAGS, "--out", str(folder / "teacher")])
    return folder


@pytest.fixture(scope="session")
def more(host: Any, work: Path, make_picture: Callable[..., Any]) -> Path:
    """Beside them a teacher of scenes, and photos without labels."""
    scenes = ["--task", "segmentation", "--data.source", "digit_scenes", "--student.model", "digits/unet_4_8"]
    options = [f"--data.options.{name}={size}" for name, size in SCENES.items()]
    host.run(["train", *FLAGS, *scenes, *options, "--out", str(work / "dense")])
    (work / "photos").mkdir()
    for number in range(23):
        make_picture("circle", number).resize((80, 80)).save(work / "photos" / f"{number}.png")
    return work


FLAGS = ["--train.device", "cpu", "--train.precision", "fp32", "--train.epochs", "1", "--quiet"]
OTHERS = ("features", "features alone", "scenes", "photos", "store")
SCENES = {"train_size": 24, "val_size": 5, "edge": 32}


def cases(work: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """What differs from run to run; each has more to ask in one process than in the other."""
    digits, dense = work / "teacher", work / "dense"
    scenes = {"source": "digit_scenes", "options": SCENES, "scenes": {"window": [24, 24]}}
    some = {"store": str(folder / "some"), "missing": "live"}
    return {
        "labels": values(work, digits, train={"accumulate": 2, "batch_size": 216, "epochs": 1}),
        "features": values(work, digits, objective={"cross_entropy": {}, "fitnet": {"student_feature": "0"}}),
        "features alone": values(work, digits, objective={"features": {"student_feature": "0"}}),
        "scenes": values(
            work,
            dense,
            task="segmentation",
            data={**scenes, "memory_limit_gb": 0},
            student={"model": f"{work}/networks.py:dense"},
            train={"batch_size": 2},
        ),
        "photos": {
            **values(
                work,
                digits,
                student={"input_size": 8},
                teacher={"input_size": 72},
                objective={"balance": {}},
                train={"batch_size": 3, "drop_last": True},
            ),
            "data": {"source": "photos", "path": str(work / "photos"), "val_fraction": 0.3, "size": 72, "workers": 0},
        },
        "store": values(
            work,
            digits,
            data={"views": {"crop": "pad", "padding": 1}, "options": {"train_size": 120}},
            teacher=some,
            train={"batch_size": 4},
        ),
    }


@pytest.mark.parametrize("case", ["labels", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_run_ends_in_the_bytes_of_one_with_the_whole_teacher(
    case: str, host: Any, work: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if case in OTHERS:
        request.getfixturevalue("more")
    run = cases(work, tmp_path)[case]
    if case == "store":
        itself = config.merge(run, {"teacher": {"store": None, "missing": "refuse"}})
        (tmp_path / "record.yaml").write_text(json.dumps(itself))
        host.run(["record", str(tmp_path / "record.yaml"), "--out", str(tmp_path / "all"), "--quiet"])
        store.prune(tmp_path / "all", keep=range(0, 18, 2), out=tmp_path / "some")
    ends_alike(host, run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_a_teacher_by_words_is_shared_out(
    kind: str, host: Any, word_model: Callable[[str], Path], image_folder: Path, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.yaml").write_text("[stripes, circle, square]")
    run = values(
        work,
        work / "teacher",
        teacher={"model": f"hf/{word_model(kind)}", "prompts": str(tmp_path / "classes.yaml")},
        student={"model": "cifar/resnet8"},
        train={"batch_size": 8},
    )
    del run["teacher"]["checkpoint"]
    ends_alike(host, {**run, "data": {"path": str(image_folder), "size": 16, "workers": 0}}, tmp_path)


def ends_alike(host: Any, run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    ends = {}
    for name, flag in (("whole", "--teacher.no-shard"), ("shards", "--teacher.shard")):
        host.together(["distill", str(tmp_path / "run.yaml"), flag, "--out", str(tmp_path / name)])
        files = ("student/model.safetensors", "checkpoints/best.safetensors")
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        told = [(line.get("val"), line.get("gauge"), line.get("terms")) for line in lines]
        ends[name] = [*((tmp_path / name / file).read_bytes() for file in files), told]
        assert ("are shared out over 2 processes" in host.said()) == (name == "shards")
    assert ends["shards"] == ends["whole"]


@pytest.mark.slow
def test_torchrun_goes_on_with_a_run_in_shards_and_one_process_without(
    torchrun: Callable[..., str], host: Any, work: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(values(work, work / "teacher", teacher={"shard": True})))
    line = ["distill", str(tmp_path / "run.yaml"), "--quiet", "--out", str(tmp_path / "run")]
    torchrun(line)
    student = tmp_path / "run" / "student"
    weights = (student / "model.safetensors").read_bytes()
    shutil.rmtree(student)
    host.run([*line, "--resume"], code=2)
    assert "here is one: start them with torchrun" in host.said()
    host.run([*line, "--resume", "--teacher.no-shard"])
    assert (student / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_recording_in_shards_is_that_of_the_whole_teacher_whatever_befalls_a_process(
    torchrun: Callable[..., str], host: Any, work: Path, tmp_path: Path
) -> None:
    run = values(work, work / "teacher", data={"views": {"crop": "pad", "padding": 1}, "options": {"train_size": 130}})
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    line = ["record", str(tmp_path / "run.yaml"), "--quiet"]
    host.run([*line, "--out", str(tmp_path / "whole")])
    in_the_way = tmp_path / "shards" / "chunks" / "000012-000000.bin"  # the second process writes it
    in_the_way.mkdir(parents=True)
    said = torchrun([*line, "--teacher.shard", "--out", str(tmp_path / "shards")], fails=True)
    assert "000012-000000.bin could not be written" in said
    in_the_way.rmdir()
    host.together([*line, "--teacher.shard", "--out", str(tmp_path / "shards")])
    contents = [
        {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.suffix in (".bin", ".json")
        }
        for folder in (tmp_path / "whole", tmp_path / "shards")
    ]
    assert len(contents[0]) == 19
    assert contents[1] == contents[0]
