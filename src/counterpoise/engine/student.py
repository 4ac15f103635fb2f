"""The student folder: everything the trained network needs, and nothing of its teacher."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_bytes

from counterpoise import config, tasks
from counterpoise.data.images import pictures
from counterpoise.engine import card
from counterpoise.engine.student_epochs import Epoch, read_epoch
from counterpoise.errors import ModelError
from counterpoise.models import catalog, checkpoint, folder
from counterpoise.models.network import VisionModel
from counterpoise.system import own_code
from counterpoise.system.files import replacing_folder


class Student(VisionModel):
    """A trained student, ready to answer.

    Attributes:
        description: what student.json says of it: metrics, provenance and the rest.
    """

    def __init__(self, model: VisionModel, description: folder.Description) -> None:
        super().__init__(**model.settings())
        self.description = description

    def predict(self, images: Any) -> list[dict[str, Any]]:
        """What the student says of pictures: paths, bytes of files, PIL images or uint8 arrays [H, W, 3]; a list of
        them, or a single one.

        Returns one answer a picture; for classification {"class", "probability", "top": [five of them]}, and "sure"
        and "set" of a student that has made a promise, see `counterpoise.promise`.
        """
        return tasks.get(self.task).predict(self, pictures(images, self.channels))


def load_student(
    path: str | Path, *, model: catalog.Model | None = None, epoch: Epoch | None = None, backbone: bool = False
) -> Student:
    """The student in a student folder, or in a run folder, in eval mode on the CPU.

    Args:
        path: the folder.
        epoch: "last" or "best": of a run, the student of that epoch; default: the one that ships.
        backbone: take a student that imitated features alone, too, whose answers mean nothing: for its features.
        model: needed where the network is code of your own, which the folder does not bring: the same file.py:function,
            module or function as in training.

    Raises:
        ModelError: a file is missing, damaged, changed or of a newer format; the network is code and no `model` given.
    """
    if isinstance(model, str):
        own_code.name(model)
    source = folder.find(Path(path))
    description, content = read_epoch(source, epoch)
    if description.provenance.get("classifier") == folder.UNTRAINED and not backbone:
        raise ModelError(
            f"{source} imitated features alone, so its classifier is untrained and its answers mean nothing. Give it "
            f"one: counterpoise probe --teacher.checkpoint {path}, or train --student.checkpoint {path}."
        )
    if model is None and catalog.is_code(description.architecture):
        name = re.split(r"[:.]", description.architecture)[-1]
        way_out = (
            f"Where you trust it, name it: --model {description.architecture}, or in Python model='...'."
            if own_code.is_file(description.architecture)
            else f"Give it in Python: load_student({str(path)!r}, model={name}); on a command line, or where model "
            f"takes text, it is --model file.py:{name}."
        )
        raise ModelError(
            f"The network of {source} is {description.architecture}, code that a student folder does not bring. "
            f"{way_out}"
        )
    built = catalog.build(
        model if model is not None else description.architecture,
        num_classes=len(description.classes),
        checkpoint=source,
        arguments=description.arguments,
        classes=description.classes,
    )
    built.task, built.thresholds = description.task, description.own_thresholds
    if epoch is not None:
        checkpoint.load(built.net, checkpoint.Weights(f"{source}, {epoch} epoch", load_bytes(content)), built.name)
    if epoch in (None, folder.shipped_epoch(description.provenance)):  # the promise is of the weights that ship
        built.promise, built.scene_promise = description.promise, description.scene_promise
    return Student(built, description).eval()


def save_student(
    model: VisionModel,
    path: Path,
    *,
    classes: Sequence[str],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    thresholds: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write a student folder, whole or not at all; an older one at `path` goes when the new one is on disk.

    Args:
        model: the network and its normalization.
        path: of the folder.
        classes: names, in the order of the logits.
        metrics: numbers by name, nested as one likes.
        provenance: where it comes from: teacher, data, run, versions.
        thresholds: of several labels, from which probability on each is answered, by the epoch: last, best.

    Raises:
        ModelError: classes do not agree with the network, or something has no form in JSON.
        RunError: it cannot be written.
    """
    if len(classes) != model.num_classes:
        raise ModelError(f"{model.name} gives {model.num_classes} logits, but {len(classes)} class names are given.")
    if model.selection is not None:
        raise ModelError(
            f"{model.name} answers in chosen classes of another network: that is a teacher, not a student."
        )
    weights = model.serialize()
    intensity = model.reading.intensity
    description = folder.Description(
        format=folder.FORMAT if intensity is None and not model.scenes.blended else folder.WITH_INTENSITY,
        architecture=model.name,
        arguments=model.arguments,
        task=model.task,
        classes=tuple(classes),
        input=folder.Input(
            size=model.input_size,
            crop_share=model.crop_share,
            fit=model.fit,
            whole=model.whole,
            **model.scenes._asdict(),
            alpha=model.reading.alpha,
            white_level=model.reading.white_level,
            channels=model.channels,
            intensity=None if intensity is None else config.Intensity.model_validate(intensity.values()),
        ),
        normalization=folder.Normalization.model_validate(model.normalization),
        metrics=dict(metrics),
        provenance=dict(provenance),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        thresholds=None if thresholds is None else {epoch: tuple(each) for epoch, each in thresholds.items()},
    )
    files = {
        folder.WEIGHTS: weights,
        folder.DESCRIPTION: as_json(description.values()),
        folder.CARD: card.of_student(model, description, path.name).encode(),
    }
    if model.name.startswith("timm/"):
        files[folder.TIMM_CONFIG] = as_json(_timm_config(model, classes))
    with replacing_folder(path) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)


def as_json(values: Mapping[str, Any]) -> bytes:
    """Values as student.json has them. Raises ModelError for what JSON has no form for."""
    try:
        return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"student.json cannot hold this: {error}. Give plain numbers, texts, lists and mappings."
        ) from None


def _timm_config(model: VisionModel, classes: Sequence[str]) -> dict[str, Any]:
    """config.json as timm reads it for `timm.create_model("local-dir:PATH", pretrained=True)`."""
    net: Any = model.net
    sources = {"url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag", "custom_load", "state_dict"}
    stale = {"test_input_size", "test_crop_pct", "test_pool_size", "label_offset", "label_names", "label_descriptions"}
    config = {key: value for key, value in net.pretrained_cfg.items() if key not in sources | stale}
    architecture = config.pop("architecture", model.name.removeprefix("timm/").partition(".")[0])
    size = model.input_size or config["input_size"][-1]
    config.update(
        model.normalization,
        num_classes=model.num_classes,
        input_size=[model.channels, size, size],
        crop_pct=model.crop_share,
        interpolation="bilinear",
    )
    arguments = dict(model.arguments)
    if model.channels != 3:
        arguments["in_chans"] = model.channels
        config["first_conv"] = None  # timm would adapt it from three channels once more
    if model.fit != "crop":
        config.update(crop_pct=1.0, crop_mode={"squash": "squash", "pad": "border"}[model.fit])
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": net.num_features,
        "label_names": list(classes),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": config,
    }
