"""Quantization-aware distillation: a student whose layers are rounded learns from itself in float, or from a store."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from counterpoise import config, tasks
from counterpoise.config.options import keywords
from counterpoise.deploy import base
from counterpoise.deploy.fake_quantization import INSIDE, fake_quantized, kept_layers, layers_of, resting
from counterpoise.deploy.network import Deployed
from counterpoise.deploy.options import Finetune
from counterpoise.engine import inputs, runs
from counterpoise.engine.student import load_student
from counterpoise.engine.trainer import Result
from counterpoise.errors import ConfigError


@keywords(Finetune)
def finetune(student: str | Path, asked: Finetune) -> Result:
    """Train a student for some epochs with its weights and its layers' inputs rounded to 8 bits.

    Batch normalization keeps the statistics it has (arXiv:1806.08342): those of small batches are not those that the
    export computes with, and depthwise nets then fall apart in 8 bits.

    The teacher is the student itself in float, unless another one or a store is named. What comes out is a run whose
    student is in float, with weights that bear rounding: what counts is its export with precision int8.

    Args:
        student: student folder, or a run's folder.

    Returns:
        As `distill`; its scores, by which the best epoch is chosen, are those of the student in float, as it ships.

    Raises:
        MissingExtraError: torchao is missing.
        KeyboardInterrupt: it was asked to stop; a checkpoint has been written.
    """
    if asked.teacher is not None and asked.store is not None:
        raise ConfigError("--teacher and --store are both given: the student learns from either of them.")
    network = load_student(Path(student), model=asked.model)
    original = copy.deepcopy(network)
    section = config.Data()
    if asked.data is not None or asked.data_set is None:
        section = inputs.data_section(Path(student), asked.data)
    if "fit" not in section.model_fields_set and tasks.get(network.task).whole:
        section = section.model_copy(update={"fit": network.fit})
    teacher = asked.teacher if asked.store is None else {"store": str(asked.store)}
    named = None if teacher is None else inputs.teacher_section(Path(student), teacher)
    values: dict[str, Any] = {
        "task": network.task,
        "data": section.model_dump(exclude_unset=True),
        "objective": dict(asked.objective or config.usual_terms(network.task)),
        "train": {
            "epochs": asked.epochs,
            "optimizer": {"name": "adamw", "learning_rate": asked.learning_rate, "weight_decay": 0.0},
            "schedule": {"name": "cosine"},
            "precision": "fp32",  # rounding twice, to 8 bits and to bfloat16, is not what runtimes do
            "fast": False,
        },
        "out": str(asked.out),
    }
    run = config.resolve(config.merge(values, dict(asked.options or {})))
    scenes = run.data.scenes.model_copy(update=network.scenes._asdict())  # shown as it is used to
    run = run.model_copy(update={"teacher": named, "data": run.data.model_copy(update={"scenes": scenes})})
    names = [name.removeprefix(INSIDE) for name in kept_layers(Deployed(network), asked.keep or ())]
    layers = layers_of(network.net)
    try:
        rounded = [layer for layer in layers if not any(f"{layer}.".startswith(f"{name}.") for name in names)]
        rounding = fake_quantized(network.net, rounded, largest=base.largest_weight())
        with rounding as roundings, _frozen_statistics(network.net):
            network.companions["rounding"] = roundings
            network.shipping = partial(resting, roundings)
            return runs.distill(
                run,
                resume=asked.resume,
                student=network,
                teacher=original if named is None else None,
                data=asked.data_set,
                overwrite=asked.overwrite,
                show=asked.show,
            )
    except KeyboardInterrupt as stop:  # distill would go on without rounding
        raise KeyboardInterrupt(str(stop).replace("counterpoise distill", f"counterpoise finetune {student}")) from None


@contextlib.contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Within, batch normalization computes as in evaluation, also while the network trains."""

    def freeze(module: nn.Module, _: Any) -> None:
        module.eval()

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, kinds):
                hooks.enter_context(module.register_forward_pre_hook(freeze))
        yield
