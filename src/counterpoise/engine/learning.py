"""Which of a network's parameters learn, how fast, and which of them decay."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from counterpoise import config
from counterpoise.errors import ConfigError, nearest
from counterpoise.models.network import VisionModel
from counterpoise.system import torchvision_guard


class Learning(NamedTuple):
    """How a parameter learns.

    Attributes:
        decays: whether weight decay applies to it.
        rate: the factor of its learning rate.
    """

    decays: bool
    rate: float = 1.0


def freeze(student: VisionModel, patterns: Sequence[str]) -> str | None:
    """Let parameters that `patterns` name stay as they are; returns what is to be said of it, None where none is named.

    Modules of which nothing learns stay in eval mode, whoever calls `train` on the network: dropout is off, and batch
    norm keeps and uses its statistics.

    Raises ConfigError for a pattern that names nothing, and where nothing would be left to learn.
    """
    if not patterns:
        return None
    frozen = [parameter for pattern in patterns for parameter in named_by("student.freeze", pattern, student.net)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    learning = [parameter for parameter in student.net.parameters() if parameter.requires_grad]
    if not learning:
        raise ConfigError(f"student.freeze {', '.join(patterns)} leaves nothing of the student to be trained.")
    for name, module in student.net.named_modules():
        own = list(module.parameters())
        # A module without parameters, such as dropout, belongs to what surrounds it, unless it is named itself.
        if any(p.requires_grad for p in own) or not (own or any(_names(each, name) for each in patterns)):
            continue
        module.__dict__["train"] = partial(_rest, module)
        module.eval()
    still, all_of_them = (sum(p.numel() for p in {*some}) for some in (frozen, student.net.parameters()))
    return f"student.freeze: {still:,} of {all_of_them:,} parameters stay as they are"


def _rest(module: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of the `train` of a module of which nothing learns: eval mode, whatever is asked for.

    It lies at the module itself, for loops that are not ours call `train` on the network and know no `VisionModel`. As
    a partial it is copied and pickled with the module, and then speaks of the copy.
    """
    return type(module).train(module, False)


def named_by(option: str, pattern: str, net: nn.Module) -> list[nn.Parameter]:
    """The parameters of which a pattern names a module that holds them, or themselves.

    Raises ConfigError where there are none.
    """
    found = [parameter for name, parameter in net.named_parameters() if _names(pattern, name)]
    if not found:
        parts = [name for name, module in net.named_modules() if name and next(module.parameters(), None) is not None]
        top = [name for name in parts if "." not in name]
        raise ConfigError(
            f"{option}: nothing in the student is called '{pattern}'.{nearest(pattern, parts)} "
            f"It has {', '.join(top[:12])}{', ...' if len(top) > 12 else ''}."
        )
    return found


def of(net: nn.Module, options: config.Optimizer) -> dict[nn.Parameter, Learning]:
    """How each parameter of a student learns.

    Raises ConfigError where layers are asked for that the network does not tell, or names that it has not.
    """
    found = {p: Learning(options.decay_norms or p.ndim > 1) for p in net.parameters() if p.requires_grad}
    if options.layer_decay is not None or options.no_weight_decay:
        found = _as_timm(net, options)
    for pattern, factor in options.rates.items():
        learning = [p for p in named_by("train.optimizer.rates", pattern, net) if p in found]
        if not learning:
            raise ConfigError(f"train.optimizer.rates: '{pattern}' names parts that student.freeze keeps as they are.")
        for parameter in learning:
            found[parameter] = found[parameter]._replace(rate=factor)
    return found


def _as_timm(net: nn.Module, options: config.Optimizer) -> dict[nn.Parameter, Learning]:
    torchvision_guard.ready()
    theirs: Any = importlib.import_module("timm.optim")  # which exports without saying so
    excepted: Iterable[str] = ()
    if options.no_weight_decay:
        if not callable(getattr(net, "no_weight_decay", None)):
            raise ConfigError(
                "train.optimizer.no_weight_decay: this network excepts nothing from weight decay (timm's transformers "
                "do): leave it out."
            )
        excepted = net.no_weight_decay()  # type: ignore[operator]
    divide: Any = theirs.param_groups_weight_decay
    if options.layer_decay is not None:
        if not callable(getattr(net, "group_matcher", None)):
            raise ConfigError(
                "train.optimizer.layer_decay: this network does not say what its layers are (timm's do). Give factors "
                "by name instead: train.optimizer.rates."
            )
        divide = partial(theirs.param_groups_layer_decay, layer_decay=options.layer_decay)
    groups: list[Mapping[str, Any]] = divide(
        net, weight_decay=1.0, no_weight_decay_list=set(excepted), weight_decay_exclude_1d=not options.decay_norms
    )
    return {
        parameter: Learning(group["weight_decay"] > 0, group.get("lr_scale", 1.0))
        for group in groups
        for parameter in group["params"]
    }


def _names(pattern: str, name: str) -> bool:
    """Whether a pattern names what has this dotted name, or a module around it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: end + 1]), pattern) for end in range(len(parts)))


def groups(modules: Sequence[nn.Module], options: config.Optimizer) -> list[dict[str, Any]]:
    """The groups of an optimizer over the trainable parameters of a student and whatever else learns.

    First what decays, then what does not, each at rate 1 and then at the others, the largest first.
    """
    found: dict[nn.Parameter, Learning] = {}
    for module in modules:
        if isinstance(module, VisionModel):
            found |= of(module._plain(), options)
        else:
            found |= {p: Learning(options.decay_norms or p.ndim > 1) for p in module.parameters() if p.requires_grad}
    kinds = sorted(set(found.values()), key=lambda kind: (not kind.decays, kind.rate != 1.0, -kind.rate))
    # timm.optim.param_groups_weight_decay divides alike and puts these groups the other way round, so that the numbers
    # which the checkpoints of today have for parameters would be those of others.
    return [
        {
            "params": [parameter for parameter, kind in found.items() if kind == wanted],
            "weight_decay": options.weight_decay if wanted.decays else 0.0,
            "rate": wanted.rate,
        }
        for wanted in kinds
    ]


def scaled(group: Mapping[str, Any], rate: float) -> float:
    """The learning rate of a group where that of training is `rate`; groups of older checkpoints have no factor."""
    factor: float = group.get("rate", 1.0)
    return rate if factor == 1.0 else rate * factor
