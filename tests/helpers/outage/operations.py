"""The operations that keep what a user has: how it was before, what is done, and what a reader finds afterwards.

Each is made in a folder of its own. What a reader finds is compared by value: as it was, or as it is to be.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from counterpoise import tasks
from counterpoise.data import sources
from counterpoise.data.packs import verifying
from counterpoise.deploy import base
from counterpoise.deploy import export as exporting
from counterpoise.deploy import folder as exports
from counterpoise.deploy.job import prepare
from counterpoise.deploy.options import Export
from counterpoise.deploy.site import runtime, samples, site
from counterpoise.engine import packing, state
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.student import load_student, save_student
from counterpoise.errors import StoreError
from counterpoise.models import catalog, checkpoint
from counterpoise.models import folder as students
from counterpoise.models.network import VisionModel
from counterpoise.studies import results
from counterpoise.system.files import make_folder, standing, write_tensors
from counterpoise.teachers.store import Header, Store, StoreWriter, prune, verify

CLASSES = ("circle", "square")


class Operation:
    """What is tried. `scratch` is a folder for what it needs beside the one that is watched."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def before(self, folder: Path) -> None:
        """Make what is there before; nothing, unless said otherwise."""

    def do(self, folder: Path) -> None:
        """What is recorded, and done again by the next start."""
        raise NotImplementedError

    def found(self, folder: Path) -> Any:
        """What a reader finds; None where nothing was written yet. Raises where it finds what it cannot read."""
        raise NotImplementedError


@functools.cache
def network(seed: int) -> VisionModel:
    """A small network."""
    torch.manual_seed(seed)
    return catalog.build("digits/cnn_4_8", num_classes=len(CLASSES)).eval()


def tree(folder: Path) -> str:
    """A digest of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


class Checkpoint(Operation):
    """An epoch's end in a run folder: lines of metrics, the best weights, the checkpoint."""

    run = "run"

    def _parts(self, step: int) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
        torch.manual_seed(step)
        module = nn.Linear(12, 40)
        optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
        module(torch.ones(1, 12)).sum().backward()
        optimizer.step()
        return {"student": module}, optimizer

    def _epoch(self, run: RunFolder, step: int) -> None:
        for number in range(2):
            run.log({"kind": "step", "step": step, "loss": 1 / (step + number), "note": "x" * 300})
        modules, optimizer = self._parts(step)
        write_tensors(run.best, modules["student"].state_dict(), {"format": "pt"})
        state.save(run.checkpoint, state.Progress(step=step, metrics_bytes=run.metrics_size()), modules, optimizer)

    def before(self, folder: Path) -> None:
        self._train(RunFolder(folder / self.run), 1)

    def do(self, folder: Path) -> None:
        self._train(RunFolder(folder / self.run), 2)

    def _train(self, run: RunFolder, step: int) -> None:
        with run.locked():
            make_folder(run.checkpoint.parent)
            done = self._resumed(run)[0].step if run.checkpoint.exists() else run.cut_metrics(0)
            if done != step:
                self._epoch(run, step)

    def _resumed(self, run: RunFolder) -> tuple[state.Progress, str]:
        modules, optimizer = self._parts(7)
        progress = state.load(run.checkpoint, modules, optimizer)
        tensors = [*modules["student"].state_dict().values(), optimizer.state_dict()["state"][0]["momentum_buffer"]]
        run.cut_metrics(progress.metrics_bytes)
        return progress, hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()

    def found(self, folder: Path) -> Any:
        run = RunFolder(folder / self.run)
        if not run.checkpoint.exists():
            return None
        progress, weights = self._resumed(run)
        checkpoint.read(run.best)
        return progress.step, weights, [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]


class FirstCheckpoint(Checkpoint):
    """The same in a run that is just beginning, whose folder is to be made."""

    run = "runs/first"

    def before(self, folder: Path) -> None:
        pass


class Recording(Operation):
    """A store recorded: two chunks and the index."""

    slots: tuple[int, ...] = (0,)

    def _header(self, slots: tuple[int, ...]) -> Header:
        return Header(
            data="d" * 64, teacher="e" * 64, kind="epochs", views={"format": 1, "seed": 0}, count=50, slots=slots,
            shape=(20,), precision="float32", rows_per_chunk=30,
        )  # fmt: skip

    def _record(self, path: Path, slots: tuple[int, ...]) -> None:
        with StoreWriter.create(path, self._header(slots)) as writer:
            for chunk in writer.missing():
                rows = torch.arange(chunk.start, chunk.stop).view(-1, 1) + 1000 * chunk.slot
                writer.write(chunk, [torch.sin(rows + torch.arange(20)).float()])
            if not writer.finish():  # as where a checksum could not be read
                raise StoreError("chunks are missing")

    def do(self, folder: Path) -> None:
        self._record(folder / "store", self.slots)

    def found(self, folder: Path) -> Any:
        path = folder / "store"
        if not (path / "index.json").exists():
            return None
        assert verify(path) == []
        with Store.open(path) as store:
            slots = store.header.slots
            every = torch.arange(50).repeat(len(slots)), torch.tensor(slots).repeat_interleave(50)
            return slots, hashlib.sha256(store.logits(*every).numpy().tobytes()).hexdigest()


class Extending(Recording):
    """A finished store extended by a view."""

    slots = (0, 1)

    def before(self, folder: Path) -> None:
        self._record(folder / "store", (0,))


class Pruning(Extending):
    """A view of a finished store dropped."""

    def before(self, folder: Path) -> None:
        self._record(folder / "store", (0, 1))

    def do(self, folder: Path) -> None:
        prune(folder / "store", keep=[1])


class StudentFolder(Operation):
    """A student folder replaced by another one."""

    def _save(self, folder: Path, seed: int) -> None:
        save_student(network(seed), folder / "student", classes=CLASSES, metrics={"seed": seed}, provenance={})

    def before(self, folder: Path) -> None:
        self._save(folder, 1)

    def do(self, folder: Path) -> None:
        self._save(folder, 2)

    def found(self, folder: Path) -> Any:
        student = load_student(folder / "student")
        return student.weights_hash(), student.description.metrics, tree(students.find(folder / "student"))


class FirstStudent(StudentFolder):
    """A student folder where there was none."""

    def before(self, folder: Path) -> None:
        pass

    def found(self, folder: Path) -> Any:
        return super().found(folder) if standing(folder / "student").exists() else None


class OnnxExport(Operation):
    """An export to ONNX replaced by another one, which is told by its notes."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        save_student(network(1), scratch / "student", classes=CLASSES, metrics={}, provenance={})
        self.job = prepare(scratch / "student", base.find("onnx"), Export(to="onnx", out=scratch / "nowhere"))

    def _write(self, folder: Path, name: str) -> None:
        exporting.write(self.job._replace(notes={"name": name}), folder / "export", None)

    def before(self, folder: Path) -> None:
        self._write(folder, "one")

    def do(self, folder: Path) -> None:
        self._write(folder, "two")

    def found(self, folder: Path) -> Any:
        described = exports.read(folder / "export")
        return described.notes["name"], sorted(described.files)


class Site(Operation):
    """A site of a student replaced by one of another name. The runtime is bytes here, as it is to what is tried."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.export = scratch / "model.onnx"
        self.export.write_bytes(b"onnx" * 500)
        kept = scratch / "cache" / "counterpoise" / f"onnxruntime-web-{runtime.VERSION}"
        kept.mkdir(parents=True)
        for name in (*runtime.EVERYWHERE, *runtime.FOR_GPUS):
            (kept / name).write_bytes(name.encode() * 50)

    def _write(self, folder: Path, name: str) -> None:
        values = {
            "format": 1, "architecture": "test/net", "arguments": {}, "task": "classification", "classes": CLASSES,
            "input": {"size": 8, "crop_share": 1.0}, "normalization": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
            "metrics": {}, "provenance": {}, "weights_sha256": "",
        }  # fmt: skip
        student = students.Description.model_validate(values)
        given = exports.Input(size=(8, 8), batch=1, crop_share=1.0).model_dump()
        with variables(XDG_CACHE_HOME=str(self.scratch / "cache")):
            site.write(
                folder / "site", student, tasks.get("classification"), name, given, {"float32": self.export},
                samples.drawn(1, (24, 24)), "Drawn.",
            )  # fmt: skip

    def before(self, folder: Path) -> None:
        self._write(folder, "one")

    def do(self, folder: Path) -> None:
        self._write(folder, "two")

    def found(self, folder: Path) -> Any:
        assert site.is_site(folder / "site")
        described = json.loads((folder / "site" / "site.json").read_bytes())
        return described["name"], site.version(folder / "site"), tree(folder / "site")


class Results(Operation):
    """results.csv of a comparison with a row more."""

    def _write(self, folder: Path, seeds: int) -> None:
        rows = [
            {**dict.fromkeys(results.COLUMNS, f"value {seed}"), "seed": seed, "last": 50.0, "best": 50.0, "fold": ""}
            for seed in range(seeds)
        ]
        results.write_rows(folder / "results.csv", results.COLUMNS, rows)

    def before(self, folder: Path) -> None:
        self._write(folder, 4)

    def do(self, folder: Path) -> None:
        self._write(folder, 5)

    def found(self, folder: Path) -> Any:
        return [row["seed"] for row in results.read_csv(folder / "results.csv")]


class Packing(Operation):
    """A folder of pictures packed in two shards."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        for number, name in enumerate(("train", "train", "val")):
            for place, shape in enumerate(CLASSES):
                kept = scratch / "pictures" / name / shape
                kept.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 9), (number * 80, place * 80, 9)).save(kept / f"{number}.png")

    def do(self, folder: Path) -> None:
        packing.pack(self.scratch / "pictures", out=folder / "pack", shards=2)

    def found(self, folder: Path) -> Any:
        if not (folder / "pack" / "pack.json").exists():
            return None
        verifying.verify(folder / "pack")
        from counterpoise import config

        splits = sources.load(config.Data(path=folder / "pack"))
        return [
            (half.fingerprint(), half.labels.tolist(), [half.read(index).sum().item() for index in range(len(half))])
            for half in (splits.train, splits.val)
        ]


OPERATIONS: dict[str, Callable[[Path], Operation]] = {
    "checkpoint": Checkpoint,
    "first checkpoint": FirstCheckpoint,
    "store recorded": Recording,
    "store extended": Extending,
    "store pruned": Pruning,
    "student folder": StudentFolder,
    "first student folder": FirstStudent,
    "ONNX export": OnnxExport,
    "site": Site,
    "results.csv": Results,
    "pack": Packing,
}
TEMPORARY = re.compile(r"\.partial|\.old$|^\.?tmp|\.rows\.npz|^recording\.json|\.sha256$|^packing\.json")


def leftovers(folder: Path) -> list[str]:
    """What looks like a file of something that is not finished."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if TEMPORARY.search(path.name))


@contextlib.contextmanager
def variables(**values: str) -> Iterator[None]:
    """With these environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
