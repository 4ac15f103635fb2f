"""Weights, checkpoints, students, exports, and the answers of a teacher."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import containers
import mutators
import torch
from campaign import Format
from making import GOLDEN, copied

from counterpoise.engine.state import Progress

INDEX = "model.safetensors.index.json"


def _network() -> tuple[dict[str, torch.nn.Module], torch.optim.Optimizer]:
    from counterpoise.models import catalog

    model = catalog.build("digits/cnn_4_8", num_classes=10)
    return {"student": model.net}, torch.optim.SGD(model.net.parameters(), 0.1, momentum=0.9)


def _make_checkpoint(folder: Path) -> None:
    from counterpoise.engine import state

    folder.mkdir()
    modules, optimizer = _network()
    for parameter in modules["student"].parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    told = {"top1": 50.0, "loss": 1.5}
    progress = Progress(
        8, 3.5, 3.0, 0.5, 700, {"loss": 2.0}, [], told, {**told, "epoch": 1}, told, ["a.png"], origin={"data": "d" * 64}
    )
    state.save(folder / "last.safetensors", progress, modules, optimizer)


def _checkpoint(folder: Path) -> Any:
    from counterpoise.engine import state

    modules, optimizer = _network()
    progress = state.load(folder / "last.safetensors", modules, optimizer)
    state.origin_of(folder / "last.safetensors")
    return progress, torch.cat([value.flatten() for value in modules["student"].state_dict().values()])


def _signed(folder: Path) -> None:
    """Give the checksum that a checkpoint would have if it had been written as it is."""
    from counterpoise.system import files

    path = folder / "last.safetensors"
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        tensors = containers.loaded(content)
    except Exception:  # it is no such file any more
        return
    told = {key: value for key, value in header["__metadata__"].items() if key != files.CHECKSUM}
    header["__metadata__"][files.CHECKSUM] = files._content_hash(tensors, told)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def _same_checkpoint(found: Any, usual: Any) -> bool:
    return bool(found[0] == usual[0] and torch.equal(found[1], usual[1]))


def _sane_checkpoint(found: Any, _: Any) -> bool:
    progress = found[0]
    numbers = [progress.step, progress.seconds, progress.train_seconds, progress.metrics_bytes, *progress.sums.values()]
    return (
        all(isinstance(number, int | float) and math.isfinite(number) for number in numbers) and progress.step < 2**53
    )


def _weights(name: str) -> Any:
    def read(folder: Path) -> Any:
        from counterpoise.models import catalog, checkpoint

        return catalog.build("digits/cnn_4_8", num_classes=10, checkpoint=folder / name) and checkpoint.read(
            folder / name
        )

    return read


def _make_weights(folder: Path) -> None:
    folder.mkdir()
    state = _network()[0]["student"].state_dict()
    torch.save({"state_dict": state, "epoch": 3, "arch": "cnn"}, folder / "weights.pth")
    torch.save({"state_dict": state, "epoch": 3}, folder / "old.pth", _use_new_zipfile_serialization=False)


def _several(folder: Path) -> None:
    """Weights in two files, with the index that says which tensor lies where."""
    from safetensors.torch import save_file

    folder.mkdir()
    state = _network()[0]["student"].state_dict()
    names, files = list(state), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    places = {name: files[at % 2] for at, name in enumerate(names)}
    for file in files:
        save_file({name: state[name] for name in names if places[name] == file}, folder / file)
    told = {"metadata": {"total_size": 2000}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(told))


def _finite(found: Any, _: Any) -> bool:
    return not any(bool(value.isnan().any()) for value in found.state.values() if value.is_floating_point())


def _student(folder: Path) -> Any:
    from counterpoise import load_student

    return load_student(folder / "student")


def _answers(student: Any, _: Any) -> bool:
    """A student that was taken answers in its classes, each of which has a name of its own."""
    answer = student.predict([torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()])[0]
    names = student.description.classes
    if any(bool((value.abs() > 1e15).any()) for value in student.net.parameters()):
        return True  # finite, and what is computed from it need not be
    return len(set(names)) == len(names) == student.num_classes and (
        "probability" not in answer or 0 <= answer["probability"] <= 1
    )


def _hashed_student(folder: Path) -> None:
    path = folder / "student" / "student.json"
    values = json.loads((GOLDEN / "run" / "student" / "student.json").read_text())
    values["weights_sha256"] = hashlib.sha256((folder / "student" / "model.safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(values))


def _export(folder: Path) -> Any:
    from counterpoise.deploy import folder as layout

    return layout.read(folder)


def _store(folder: Path) -> None:
    from counterpoise.teachers.store import Header, StoreWriter

    header = Header(
        "d" * 64,
        "e" * 64,
        "epochs",
        {"format": 1, "seed": 0, "padding": 4},
        12,
        (0, 1),
        (5,),
        "float16",
        8,
        ("a", "b", "c", "d", "e"),
    )
    with StoreWriter.create(folder, header, (0, 1)) as writer:
        for chunk in writer.missing():
            writer.write(
                chunk, [torch.randn(chunk.stop - chunk.start, 5, generator=torch.Generator().manual_seed(chunk.slot))]
            )
        writer.finish()


def _stored(folder: Path) -> Any:
    from counterpoise.teachers.store.reader import Store

    with Store.open(folder) as store:
        header, slot = store.header, store.header.slots[-1]
        indices = torch.tensor([0, header.count - 1])
        return store.logits(indices, torch.tensor([slot, slot])), store.on("cpu").logits(
            indices, torch.tensor([slot, slot])
        )


def _logits(found: Any, usual: Any) -> bool:
    """Finite, and the same by both ways."""
    return bool(torch.equal(found[0], found[1]) and found[0].isfinite().all())


def _same_logits(found: Any, usual: Any) -> bool:
    return _logits(found, usual) and bool(torch.equal(found[0], usual[0]))


WEIGHTS: tuple[Format, ...] = (
    Format(
        "checkpoint",
        _make_checkpoint,
        "last.safetensors",
        containers.of_safetensors,
        _checkpoint,
        sound=_same_checkpoint,
    ),
    Format(
        "checkpoint, checksum mended",
        _make_checkpoint,
        "last.safetensors",
        containers.metadata_of("counterpoise", mutators.of_json),
        _checkpoint,
        seal=_signed,
        sound=_sane_checkpoint,
    ),
    Format(
        "weights as zip",
        _make_weights,
        "weights.pth",
        containers.of_zip({"data.pkl": containers.of_pickle}),
        _weights("weights.pth"),
        sound=_finite,
    ),
    Format("weights as pickle", _make_weights, "old.pth", containers.of_pickle, _weights("old.pth"), sound=_finite),
    Format("index of weights", _several, INDEX, mutators.of_json, _weights(INDEX), sound=_finite),
    Format(
        "weights of an index",
        _several,
        "model-00001-of-00002.safetensors",
        containers.of_safetensors,
        _weights(INDEX),
        sound=_finite,
        quick=20,
    ),
    Format(
        "student.json",
        copied("run", "student/student.json", "student/model.safetensors"),
        "student/student.json",
        mutators.of_json,
        _student,
        sound=_answers,
    ),
    Format(
        "student weights",
        copied("run", "student/student.json", "student/model.safetensors"),
        "student/model.safetensors",
        containers.of_safetensors,
        _student,
        seal=_hashed_student,
        sound=_answers,
    ),
    Format(
        "export.json",
        copied("onnx", "export.json", "model.onnx", "reference.safetensors", "run.py"),
        "export.json",
        mutators.of_json,
        _export,
    ),
    Format(
        "file of an export",
        copied("onnx", "export.json", "model.onnx", "reference.safetensors", "run.py"),
        "model.onnx",
        mutators.of_bytes,
        _export,
        sound=lambda found, usual: False,
    ),
    Format("store index", _store, "index.json", mutators.of_json, _stored, sound=_logits),
    Format("store chunk", _store, "chunks/000001-000000.bin", mutators.of_bytes, _stored, sound=_same_logits),
)
