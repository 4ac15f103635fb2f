"""Training from a store is training with the teacher that was recorded; what does not fit is refused."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import counterpoise
from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.errors import ConfigError, CounterpoiseError, StoreError
from counterpoise.models import catalog
from counterpoise.teachers import store as stores
from counterpoise.teachers.store import Store

COUNT = 48
CLASSES = tuple("abcdef")
VIEWS: dict[str, dict[str, Any]] = {
    "complete": {"crop": "pad", "padding": 1},
    "epochs": {"crop": "pad", "padding": 2, "mixup": 0.4, "cutmix": 1.0, "randaugment": {}},
    "plain": {"crop": "none", "flip": False},
}


def splits(seed: int = 0, count: int = COUNT, classes: tuple[str, ...] = CLASSES) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count + 12, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, len(classes), (count + 12,), generator=generator)
    return Splits(ArraySet(images[:count], labels[:count], classes), ArraySet(images[count:], labels[count:], classes))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student folder of random weights that say something."""
    from counterpoise.engine.student import save_student

    torch.manual_seed(1)
    model = catalog.build("digits/cnn_8_16", num_classes=len(CLASSES), classes=CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    folder = tmp_path_factory.mktemp("teacher") / "student"
    save_student(model, folder, classes=CLASSES, metrics={}, provenance={})
    return folder


def values(teacher: Path | None = None, **sections: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "seed": 3,
        "data": {"views": VIEWS["complete"]},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 3, "batch_size": 16, "precision": "fp32", "device": "cpu", "log_every": 1},
    }
    if teacher is not None:
        given["teacher"] = {"checkpoint": str(teacher), "precision": "fp32"}
    return config.merge(given, sections)


def weights(run: dict[str, Any], out: Path, **changed: Any) -> dict[str, Tensor]:
    """The weights of the student that a run makes."""
    result = counterpoise.distill({**run, "out": str(out)}, **{"data": splits(), **changed})
    return load_file(result.folder / "student" / "model.safetensors")


def from_store(run: dict[str, Any], store: Path | str, **section: Any) -> dict[str, Any]:
    return {**run, "teacher": {"store": str(store), **section}}


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **tolerance)


@pytest.fixture(scope="session")
def live(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of the student of `values` with the teacher itself."""
    return weights(values(teacher), tmp_path_factory.mktemp("live") / "run")


@pytest.fixture(scope="session")
def recorded(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store for `values` in float32."""
    out = tmp_path_factory.mktemp("stores") / "complete"
    told = counterpoise.record(values(teacher), out=out, precision="float32", data=splits())
    assert told["finished"]
    assert told["views"] == "complete, 0-17"
    return out


@pytest.mark.parametrize("kind", VIEWS)
def test_a_store_in_float32_gives_the_bits_of_the_live_teacher(kind: str, teacher: Path, tmp_path: Path) -> None:
    run = values(teacher, data={"views": VIEWS[kind]})
    run["data"] = {"views": VIEWS[kind]}
    counterpoise.record(run, out=tmp_path / "store", views=kind, precision="float32", data=splits())  # type: ignore[arg-type]
    assert stores.info(tmp_path / "store")["views"].startswith(kind)
    stored = weights(from_store(run, tmp_path / "store"), tmp_path / "stored")
    alone = weights(run, tmp_path / "live")
    for name, value in alone.items():
        assert torch.equal(stored[name], value), name


def test_views_mixed_within_blocks_are_recorded_as_they_are_shown_and_fit_no_other_order(
    teacher: Path, tmp_path: Path
) -> None:
    blocks = {"shuffle": "blocks", "block_size": 8, "shuffle_window": 3}
    run = values(teacher, data={**blocks, "views": {"mixup": 0.3}}, train={"epochs": 2})
    counterpoise.record(run, out=tmp_path / "store", views="epochs", precision="float32", data=splits())
    stored = weights(from_store(run, tmp_path / "store"), tmp_path / "stored")
    assert_near(stored, weights(run, tmp_path / "live"), rtol=0, atol=0)
    for other in ({"shuffle": "full"}, {"shuffle_window": 1}, {"block_size": 9}):
        changed = config.merge(from_store(run, tmp_path / "store"), {"data": other})
        with pytest.raises(StoreError, match="order"):
            weights(changed, tmp_path / "other")


def test_views_of_a_large_set_are_looked_up_a_batch_at_a_time(
    recorded: Path, live: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterpoise.teachers.stored.DRAWN_AT_ONCE", 0)
    assert_near(weights(from_store(values(), recorded), tmp_path / "stored"), live, rtol=0, atol=0)


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("int8", 2e-2)])
def test_fewer_bits_agree_with_the_live_teacher_to_their_rounding(
    precision: str, tolerance: float, live: dict[str, Tensor], recorded: Path, tmp_path: Path
) -> None:
    stores.prune(recorded, precision=precision, out=tmp_path / "store")
    stored = weights(from_store(values(), tmp_path / "store"), tmp_path / "stored")
    assert_near(stored, live, rtol=tolerance, atol=tolerance)


def test_a_half_precision_teacher_comes_back_from_float16_in_its_own_bits(teacher: Path, tmp_path: Path) -> None:
    run = values(teacher)
    run["teacher"]["precision"] = "bf16"
    counterpoise.record(run, out=tmp_path / "store", precision="float16", data=splits())
    assert stores.info(tmp_path / "store")["computed_in"] == "bfloat16"
    stored = weights(from_store(run, tmp_path / "store"), tmp_path / "stored")
    assert_near(stored, weights(run, tmp_path / "live"), rtol=1e-6, atol=1e-6)
    weights(from_store(run, tmp_path / "store", precision="bf16"), tmp_path / "as recorded")
    for name, noted in (("stored", True), ("as recorded", False)):
        said = json.loads((tmp_path / name / "data.json").read_text())["said"]
        note = "its teacher computed in bf16, and teacher.precision is fp32: bf16 counts"
        assert any(note in line for line in said) == noted


def test_more_epochs_and_another_seed_fit_a_complete_store(recorded: Path, teacher: Path, tmp_path: Path) -> None:
    run = values(teacher, seed=8, train={"epochs": 5})
    stored = weights(from_store(run, recorded), tmp_path / "stored")
    for name, value in weights(run, tmp_path / "live").items():
        assert torch.equal(stored[name], value)


def refused(run: dict[str, Any], out: Path, *words: str, **changed: Any) -> None:
    with pytest.raises(CounterpoiseError) as caught:
        weights(run, out, **changed)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not out.exists()


def test_a_store_of_something_else_is_refused_with_the_difference(
    recorded: Path, teacher: Path, tmp_path: Path
) -> None:
    run, out = from_store(values(), recorded), tmp_path / "run"
    refused(run, out, "does not fit", "other data: sha256", data=splits(1))
    refused(run, out, "number of samples: 48 in the store, 40 given", data=splits(count=40))
    refused(run, out, "classes: a, b, c, d, e in the store, x, b, c, d, e given", data=splits(classes=("x", *"bcdef")))
    refused(run, out, "holds logits of 6 classes, and the run has 5", data=splits(classes=CLASSES[:5]))
    padded = config.merge(run, {"data": {"views": {"padding": 2}}})
    refused(padded, out, "views, padding: 1 in the store, 2 given")
    refused(config.merge(run, {"data": {"views": {"mixup": 0.2}}}), out, "cannot be counted", "record views by epochs")
    torch.manual_seed(9)
    other = catalog.build("digits/cnn_8_16", num_classes=len(CLASSES), classes=CLASSES)
    refused(run, out, "other teacher: sha256", teacher=other)
    named = from_store(values(), recorded, checkpoint=str(teacher))
    assert weights(named, tmp_path / "same").keys() == weights(run, tmp_path / "nobody").keys()


def test_another_seed_is_refused_where_views_are_drawn(teacher: Path, tmp_path: Path) -> None:
    counterpoise.record(values(teacher), out=tmp_path / "store", views="epochs", data=splits())
    refused(from_store(values(seed=4), tmp_path / "store"), tmp_path / "run", "views, seed: 3 in the store, 4 given")


def test_missing_views_are_refused_or_asked_of_the_teacher(
    recorded: Path, live: dict[str, Tensor], teacher: Path, tmp_path: Path
) -> None:
    smaller = tmp_path / "smaller"
    stores.prune(recorded, keep=[0, 2, 3, 17], out=smaller)
    refused(from_store(values(), smaller), tmp_path / "run", "lacks views that the run needs: 1, 4-16.")
    refused(from_store(values(), smaller, missing="live"), tmp_path / "run", "missing: live needs the teacher itself")
    some = from_store(values(), smaller, missing="live", checkpoint=str(teacher))
    assert_near(weights(some, tmp_path / "some"), live, rtol=1e-4, atol=1e-5)
    module = catalog.build(None, checkpoint=teacher)
    handed = from_store(values(), smaller, missing="live")
    assert_near(weights(handed, tmp_path / "handed", teacher=module), live, rtol=1e-4, atol=1e-5)

    counterpoise.record(
        values(teacher), out=tmp_path / "epochs", views="epochs", epochs=2, precision="float32", data=splits()
    )
    run = from_store(values(), tmp_path / "epochs")
    refused(run, tmp_path / "run", "lacks epochs that the run needs: 2.", "store extend")
    some = from_store(values(), tmp_path / "epochs", missing="live", checkpoint=str(teacher))
    assert_near(weights(some, tmp_path / "longer"), live, rtol=1e-4, atol=1e-5)


def test_features_are_not_in_a_store(recorded: Path, tmp_path: Path) -> None:
    run = from_store(values(objective={"cross_entropy": {}, "fitnet": {"weight": 1.0}}), recorded)
    refused(run, tmp_path / "run", "features of the teacher", "leave out teacher.store")


def test_a_damaged_chunk_stops_the_run_and_is_named(recorded: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(recorded, damaged)
    chunk = damaged / "chunks" / "000005-000000.bin"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"000005-000000\.bin of store .* is damaged"):
        weights(from_store(values(), damaged), tmp_path / "run")
    chunk.write_bytes(data[:-1])
    refused(from_store(values(), damaged), tmp_path / "other", "000005-000000.bin", "has 1151 bytes, not 1152")
    chunk.unlink()
    refused(from_store(values(), damaged), tmp_path / "other", "000005-000000.bin", "is missing")
    refused(from_store(values(), tmp_path / "nowhere"), tmp_path / "other", "nowhere holds no store")


def test_no_logits_of_a_batch_are_another_s(recorded: Path) -> None:
    """What the trainer is handed is what the store holds for the batch's samples and views."""
    from counterpoise.engine.assemble import assemble, resolve_auto
    from counterpoise.engine.processes import join

    run = config.resolve(from_store(values(), recorded))
    with join("cpu") as processes:
        parts = assemble(resolve_auto(run, processes.device), processes, data=splits())
        assert parts.stored is not None
        seen = 0
        with Store.open(recorded) as store:
            for batch, read in parts.stored.follow(1, parts.train.epoch(1)):
                expected = store.logits(batch.indices, parts.train.numbers(1, batch.indices))
                assert torch.equal(parts.stored.answer(batch.images, read).logits, expected)
                seen += len(batch.indices)
        assert seen == COUNT


@pytest.fixture
def address(recorded: Path) -> Iterator[str]:
    """The store on a local server."""
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp, which is not installed")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=recorded.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{recorded.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_store_at_an_address_trains(
    address: str, live: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stored = weights(from_store(values(), address), tmp_path / "stored")
    for name, value in live.items():
        assert torch.equal(stored[name], value)
    assert len(list((tmp_path / "cache").rglob("*.bin"))) == 18


class Quarter(nn.Module):
    """Logits of three classes at a quarter of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)  # type: ignore[no-any-return]


def test_segmentation_is_stored_at_the_teacher_s_own_resolution(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (14, 3, 32, 32), dtype=torch.uint8, generator=generator)
    masks = (images.float().mean(1) / 86).to(torch.uint8)
    masks[:, 0] = IGNORE
    data = Splits(
        ArraySet.of_scenes(images[:10], masks[:10], "abc"), ArraySet.of_scenes(images[10:], masks[10:], "abc")
    )
    torch.manual_seed(5)
    teacher, start = Quarter(8), Quarter(4).state_dict()
    run = {
        "task": "segmentation",
        "seed": 3,
        "data": {"workers": 0, "scenes": {"scale": [0.75, 1.5], "jitter": 0.2}},
        "train": {"epochs": 2, "batch_size": 5, "precision": "fp32", "device": "cpu"},
        "teacher": {"accept_chance": True},
    }

    def trained(out: Path, **changed: Any) -> dict[str, Tensor]:
        student = Quarter(4)
        student.load_state_dict(start)
        given = {**run, **changed.pop("sections", {}), "out": str(out)}
        result = counterpoise.distill(given, student=student, data=data, **changed)
        return load_file(result.folder / "student" / "model.safetensors")

    alone = trained(tmp_path / "live", teacher=teacher)
    for precision, tolerance in (("float32", 1e-6), ("float16", 2e-3)):
        store = tmp_path / precision
        told = counterpoise.record(run, out=store, precision=precision, student=Quarter(4), teacher=teacher, data=data)
        assert (told["logits"], told["views"]) == ("3x8x8", "epochs, 0-1")
        stored = trained(tmp_path / f"from-{precision}", sections={"teacher": {"store": str(store)}})
        assert_near(stored, alone, rtol=tolerance, atol=tolerance)
    other = {"teacher": {"store": str(store)}, "seed": 4}
    with pytest.raises(StoreError, match="seed: 3 in the store, 4 given"):
        trained(tmp_path / "other", sections=other)


def test_only_distill_has_a_use_for_a_store_and_record_for_a_teacher(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="record needs a teacher"):
        counterpoise.record(values(), out=tmp_path / "store", data=splits())
    run = {**from_store(values(), recorded), "out": str(tmp_path / "run")}
    result = counterpoise.train(run, data=splits())
    assert "balance/forward" not in json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])["terms"]
