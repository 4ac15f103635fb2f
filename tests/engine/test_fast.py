"""The fast step of small images is the general step in another form: the same views, losses, weights and files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterpoise
from counterpoise import config
from counterpoise.data.loader import TrainLoader
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.fast.capturability import find_obstacle, last_move, numbers
from counterpoise.engine.fast.capture import WARM_UP, Capture, plain_tensors
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, join
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.trainer import Trainer
from counterpoise.errors import ConfigError, Interrupted
from counterpoise.models import catalog
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

COUNT = 70
CLASSES = tuple("abcdef")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def splits(count: int = COUNT) -> Splits:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + 12, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, len(CLASSES), (count + 12,), generator=generator)
    known = labels[count:].clamp(min=0)
    return Splits(ArraySet(images[:count], labels[:count], CLASSES), ArraySet(images[count:], known, CLASSES))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student folder of random weights."""
    from counterpoise.engine.student import save_student

    torch.manual_seed(1)
    model = catalog.build("digits/cnn_8_16", num_classes=len(CLASSES), classes=CLASSES)
    folder = tmp_path_factory.mktemp("teacher") / "student"
    save_student(model, folder, classes=CLASSES, metrics={}, provenance={})
    return folder


@pytest.fixture(scope="session")
def store(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store of its logits."""
    out = tmp_path_factory.mktemp("stores") / "complete"
    counterpoise.record(values(teacher=of_random_weights(teacher)), out=out, data=splits())
    return out


def of_random_weights(teacher: Path) -> dict[str, Any]:
    return {"checkpoint": str(teacher), "accept_chance": True}


def values(**sections: Any) -> dict[str, Any]:
    """A run whose last batch of an epoch is smaller than the others."""
    given: dict[str, Any] = {
        "seed": 3,
        "data": {"views": {"crop": "pad", "padding": 1}},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 3, "batch_size": 16, "precision": "fp32", "device": "cpu", "log_every": 1},
    }
    return config.merge(given, sections)


def files(folder: Path) -> dict[str, bytes]:
    """What two runs must share: weights, checkpoints, and metrics without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for clock in ("images_per_second", "stages", "readers", "advice"):
            line.pop(clock, None)
    weights = ("student/model.safetensors", "checkpoints/best.safetensors")
    return {"metrics": json.dumps(lines).encode(), **{name: (folder / name).read_bytes() for name in weights}}


def trainer(run: dict[str, Any], folder: Path, **changed: Any) -> Trainer:
    """A trainer as `distill` makes one."""
    resolved = config.resolve(run)
    with join(resolved.train.device) as processes:
        resolved = resolve_auto(resolved, processes.device)
        parts = assemble(resolved, processes, **{"data": splits(), **changed})
        run_folder = RunFolder(folder)
        if not folder.exists():
            folder.mkdir(parents=True)
            run_folder.start(resolved)
        return Trainer(resolved, run_folder, parts, processes, show=False)


RUNS: dict[str, dict[str, Any]] = {
    "store": {},
    "labels": {"objective": {"cross_entropy": {"label_smoothing": 0.1}}, "teacher": None},
    "live teacher, mixed views": {"teacher": "live", "data": {"views": {"mixup": 0.4, "cutmix": 1.0}}},
    "average, clipping, no last batch": {
        "train": {"ema": 0.9, "clip_gradient": 0.5, "drop_last": True, "optimizer": {"nesterov": True}}
    },
    "adamw, half precision": {
        "train": {"optimizer": {"name": "adamw", "learning_rate": 0.01}, "precision": "bf16", "channels_last": True}
    },
    "warm-up and a rule by sample": {
        "objective": {"dkd": {"warmup": 0.3}, "balance": {"rule": "head_tail"}},
        "train": {"schedule": {"name": "one_cycle"}},
    },
    "features": {"teacher": "live", "objective": {"cross_entropy": {}, "fitnet": {"weight": 10.0}}},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_fast_step_leaves_the_files_of_the_general_one(
    name: str, teacher: Path, store: Path, tmp_path: Path
) -> None:
    sections = dict(RUNS[name])
    given = sections.pop("teacher", "store")
    run = values(**sections)
    if given is not None:
        run["teacher"] = of_random_weights(teacher) if given == "live" else {"store": str(store)}
    call = counterpoise.train if given is None else counterpoise.distill
    for folder, fast in ((tmp_path / "general", False), (tmp_path / "fast", True)):
        call({**config.merge(run, {"train": {"fast": fast}}), "out": str(folder)}, data=splits())
    general, fast_ones = files(tmp_path / "general"), files(tmp_path / "fast")
    for name in general:
        assert fast_ones[name] == general[name], name


@pytest.mark.parametrize(
    "views",
    [{}, {"mixup": 0.4, "cutmix": 1.0, "rotate": 20, "flip_vertical": True}, {"crop": "none", "flip": False}],
    ids=str,
)
def test_views_found_by_place_are_those_of_the_loader(views: dict[str, Any]) -> None:
    loader = small_loader(views, "cpu")
    indices, drawn = loader.draw_epoch(2)
    for number, batch in enumerate(loader.epoch(2)):
        start = number * loader.batch_size
        seen = len(batch.indices) + loader.plan.mixes
        images, target = loader.show(drawn.at(torch.arange(start, start + seen)))
        assert torch.equal(images, batch.images)
        assert torch.equal(target, batch.target)
        assert torch.equal(indices[start : start + len(batch.indices)], batch.indices)


@CUDA
@pytest.mark.parametrize("views", [{}, {"mixup": 0.4, "cutmix": 1.0, "rotate": 20, "flip_vertical": True}], ids=str)
def test_views_on_a_gpu_are_those_on_the_cpu(views: dict[str, Any]) -> None:
    here, there = small_loader(views, "cpu"), small_loader(views, "cuda")
    _, drawn = there.draw_epoch(2)
    for number, (mine, other) in enumerate(zip(here.epoch(2), there.epoch(2), strict=True)):
        assert torch.equal(mine.images, other.images.cpu())
        assert torch.equal(mine.target, other.target.cpu())
        seen = len(mine.indices) + there.plan.mixes
        images, _ = there.show(drawn.at(torch.arange(seen, device="cuda") + number * there.batch_size))
        assert torch.equal(mine.images, images.cpu())


def small_loader(views: dict[str, Any], device: str) -> TrainLoader:
    options: dict[str, Any] = {"num_classes": len(CLASSES), "batch_size": 16, "seed": 5, "size": None, "device": device}
    return TrainLoader(splits().train, config.Views(**{"crop": "pad", **views}), **options)


@pytest.mark.parametrize("first", [True, False], ids=["fast first", "general first"])
def test_a_run_goes_on_in_the_other_form_to_the_same_bits(
    first: bool, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = values(teacher={"store": str(store)}, train={"ema": 0.9})
    whole = trainer(run, tmp_path / "whole")
    whole.fit(resume=False)
    changed = tmp_path / "changed"
    begun = trainer(config.merge(run, {"train": {"fast": first}}), changed)
    assert (begun.fast is not None) == first
    with pytest.raises(Interrupted):
        begun.fit(resume=False, deadline=time.monotonic())
    assert begun.progress.step == 1  # in the middle of an epoch
    after = trainer(config.merge(run, {"train": {"fast": not first}}), changed)
    assert (after.fast is not None) != first
    after.fit(resume=True)
    assert after.progress.step == whole.progress.step == 15
    for name, value in whole.optimization.shipped_weights().items():
        assert torch.equal(value, after.optimization.shipped_weights()[name]), name
    logs = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in
            (tmp_path / "whole", changed)]  # fmt: skip
    for mine, other in zip(*logs, strict=True):
        clock = {"images_per_second": 0, "stages": {}, "readers": {}, "advice": ""}
        assert {**mine, **clock} == {**other, **clock}


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    wild = {"optimizer": {"learning_rate": 1e30}, "schedule": {"name": "constant"}, "fast": True}
    with pytest.raises(counterpoise.CounterpoiseError, match=r"not finite at step \d"):
        counterpoise.train({**values(train=wild), "out": str(tmp_path / "run")}, data=splits())


def parts_of(run: dict[str, Any], **changed: Any) -> Parts:
    resolved = config.resolve(run)
    with join("cpu") as processes:
        return assemble(resolve_auto(resolved, processes.device), processes, **{"data": splits(), **changed})


def test_on_a_cpu_it_is_taken_only_where_it_is_asked_for(tmp_path: Path) -> None:
    alone = {"objective": {"cross_entropy": {}}}
    assert not parts_of(values(**alone)).fast
    assert parts_of(values(**alone, train={"fast": True})).fast
    result = counterpoise.train({**values(), "out": str(tmp_path / "run")}, data=splits())
    assert config.resolve(config.read(result.folder / "run.yaml")).train.fast == "auto"


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(192, len(CLASSES)))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)  # type: ignore[no-any-return]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "RandAugment": ({"data": {"views": {"randaugment": {}}}}, "RandAugment treats each in its own way"),
    "schedule": (
        {"objective": {"balance": {"weight": {"shape": "linear", "start": 0.0, "end": 1.0}}}},
        "weights or arguments of the objective move",
    ),
    "long warm-up": ({"objective": {"dkd": {"warmup": 0.8}}}, "weights or arguments of the objective move"),
    "told": ({"objective": {"crd": {"negatives": 20}}, "teacher": "live"}, "objective.crd is told the samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_fast_is_refused_with_the_reason(name: str, teacher: Path, store: Path) -> None:
    sections, message = REFUSED[name]
    sections = dict(sections)
    live = sections.pop("teacher", None) == "live" or name == "RandAugment"
    run = values(**sections, train={"fast": True})
    run["teacher"] = of_random_weights(teacher) if live else {"store": str(store)}
    with pytest.raises(ConfigError, match=f"train.fast: .*{message}") as caught:
        parts_of(run)
    assert "auto" in str(caught.value)
    run["train"]["fast"] = "auto"
    assert not parts_of(run).fast


def test_a_student_that_draws_is_refused(store: Path) -> None:
    run = values(teacher={"store": str(store)}, train={"fast": True})
    with pytest.raises(ConfigError, match="Dropout in the student draws random numbers"):
        parts_of(run, student=Dropping())


def test_a_store_that_lacks_views_or_room_is_refused(
    teacher: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from counterpoise.teachers import resident
    from counterpoise.teachers import store as stores

    stores.prune(store, keep=[0, 2, 3], out=tmp_path / "some")
    section = {"store": str(tmp_path / "some"), "missing": "live", **of_random_weights(teacher)}
    with pytest.raises(ConfigError, match="the store lacks views"):
        parts_of(values(teacher=section, train={"fast": True}))
    monkeypatch.setattr(resident, "SHARE", 0.0)
    with pytest.raises(ConfigError, match=r"takes .* GB, more than .* of the memory that is free"):
        parts_of(values(teacher={"store": str(store)}, train={"fast": True}))


def test_several_processes_take_the_general_step() -> None:
    parts = parts_of(values(objective={"cross_entropy": {}}))
    two = Processes(0, 2, torch.device("cpu"))
    assert find_obstacle(parts, two) == "several processes train together"


def objective(**terms: dict[str, Any]) -> WeightedSum:
    return WeightedSum(config.resolve({"objective": terms}).objective)


def test_numbers_are_those_that_a_graph_would_hold_fast() -> None:
    still, ramp = objective(cross_entropy={}, balance={"weight": 2.0}), objective(dkd={"warmup": 0.5})
    assert last_move(still, 100) == 0
    assert last_move(ramp, 100) > 0
    seen = []
    for progress in (0.0, 0.2, 0.6, 1.0):
        ramp.set_progress(progress)
        seen.append(numbers(ramp))
    assert len(set(seen)) == 3
    assert seen[2] == seen[3]


def test_what_a_rule_keeps_for_the_log_is_found() -> None:
    rule = objective(balance={"rule": "head_tail"})
    assert plain_tensors(rule) == []
    rule(Outputs(torch.randn(4, 6)), Outputs(torch.randn(4, 6)), None)
    ((module, name, value),) = plain_tensors(rule)
    assert torch.equal(vars(module)[name][0], value[0])


@CUDA
@pytest.mark.parametrize("name", ["store", "average, clipping, no last batch", "warm-up and a rule by sample"])
def test_a_captured_run_ends_where_the_general_one_does(name: str, store: Path, tmp_path: Path) -> None:
    sections = config.merge(RUNS[name], {"train": {"device": "cuda", "epochs": 4}})
    run = values(**sections, teacher={"store": str(store)})
    losses = []
    for fast in (False, True):
        made = trainer(config.merge(run, {"train": {"fast": fast}}), tmp_path / str(fast))
        made.fit(resume=False)
        assert (made.fast is not None) == fast
        if made.fast is not None:
            assert made.fast.capture is not None
            assert made.fast.capture.obstacle is None
            assert made.fast.capture._graph is not None
        lines = map(json.loads, (tmp_path / str(fast) / "metrics.jsonl").read_text().splitlines())
        losses.append([line["loss"] for line in lines if line["kind"] == "step"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@CUDA
def test_a_graph_does_what_calls_do_and_follows_its_key() -> None:
    counter, factor = nn.BatchNorm1d(1).cuda(), [1.0]
    total = counter.running_mean
    assert total is not None

    def add() -> None:
        total.add_(factor[0])

    capture = Capture(add, counter, torch.device("cuda"), lambda: None)
    for _ in range(WARM_UP + 5):
        capture(factor[0])
    assert capture._graph is not None
    assert total.item() == WARM_UP + 5
    factor[0] = 10.0
    for _ in range(WARM_UP + 2):
        capture(factor[0])
    assert capture.obstacle is None
    assert total.item() == WARM_UP + 5 + 10 * (WARM_UP + 2)


@CUDA
@pytest.mark.parametrize("what", ["waits", "draws", "replaces"])
def test_what_a_graph_would_not_do_again_is_found_out(what: str) -> None:
    module = nn.BatchNorm1d(1).cuda()

    def step() -> None:
        assert module.running_mean is not None
        if what == "waits":
            module.running_mean.add_(module.running_mean.sum().item() + 1)
        elif what == "draws":
            module.running_mean.add_(torch.rand(1, device="cuda"))
        else:
            module.running_mean = module.running_mean + 1

    capture = Capture(step, module, torch.device("cuda"), lambda: None)
    for _ in range(WARM_UP + 2):
        capture(None)
    assert capture.obstacle is not None
    assert what in capture.obstacle
    assert capture._graph is None
