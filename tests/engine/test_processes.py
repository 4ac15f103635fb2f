"""Several processes train as one: each objective that is a mean has the gradient and the terms of the whole batch."""

from __future__ import annotations

import inspect
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from counterpoise.config import Term
from counterpoise.engine.processes import Processes
from counterpoise.engine.step import StudentLoss, require_reached
from counterpoise.errors import ConfigError
from counterpoise.objectives.base import LogitObjective, entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dense import DenseSum
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs
from counterpoise.system import own_code

CLASSES, SAMPLES, VOID = 5, 9, 255
MASK, LARGE = 12, 64
"""Edges of masks; a share of large ones is large enough for the fast form."""
WEIGHTS = [0.2, 5.0, 1.0, 0.0, 2.5]
ALIKE = torch.eye(CLASSES).add(0.5).clamp(max=1.0).tolist()
OWN = str(Path(__file__).with_name("own_objectives.py"))
"""Compare the samples of a batch with each other, or draw: what they are of a share says nothing of the whole."""
WHOLE_BATCH = {"cirkd", "crd", "dist", "mlkd", "rkd"}
WHOLE_BATCH |= {"dice", "focal_tversky", "lovasz_hinge", "lovasz_softmax", "tversky"}
FEATURES = {"at", "cwd_feature", "fitnet", "ifvd", "reviewkd", "skd"}
RULES = {"entropy": {}, "head_tail": {}, "class_ratio": {}, "self_tuning": {"decay": 0.0}}


class Case(NamedTuple):
    """One objective on one kind of target."""

    task: str
    target: str
    terms: dict[str, dict[str, Any]]
    mask: int = MASK


def cases() -> Iterator[tuple[str, Case]]:
    """Every objective that is a mean, in each way that its positions may count."""
    for name, entry in entries().items():
        if name in WHOLE_BATCH:
            continue
        takes = inspect.signature(entry.kind).parameters
        beside = {"cross_entropy": {"weight": 0.1}} if name in FEATURES else {}
        for task, target in (("classify", "labels"), ("classify", "some"), ("segment", "void")):
            if task == "classify" and "maps" in entry.kind.needs:
                continue
            ignored = {"ignore_index": VOID if target == "void" else -1}
            arguments: dict[str, Any] = ignored if "ignore_index" in takes and name not in FEATURES else {}
            if "likeness" in takes:
                arguments = {**arguments, "likeness": ALIKE}
            yield f"{name} {target}", Case(task, target, {**beside, name: arguments})
            if "reduction" in takes:
                yield f"{name} sum {target}", Case(task, target, {name: {**arguments, "reduction": "sum"}})
            if issubclass(entry.kind, LogitObjective):
                term = {"objective": "class_weighted", "of": name, "class_weight": WEIGHTS, **arguments}
                yield f"class_weighted {name} {target}", Case(task, target, {"weighted": term})
    for task, target in (("classify", "some"), ("segment", "void")):
        both = {"cross_entropy": {"class_weight": WEIGHTS, "label_smoothing": 0.1}, "balance": {"weight": 2.0}}
        yield f"weighted labels beside balance, {target}", Case(task, target, both)
        plain = {"cross_entropy": {}, "balance": {}, "again": {"objective": "forward_kl", "temperature": 1.0}}
        yield f"labels and two divergences, {target}", Case(task, target, plain, LARGE)
        mean = {"cross_entropy": {}, "own": {"objective": f"{OWN}:SquaredDistance"}}
        yield f"one's own values, {target}", Case(task, target, mean)
        for rule, arguments in RULES.items():
            term = {"rule": rule, "rule_arguments": arguments, "ignore_index": VOID if target == "void" else -1}
            yield f"balance by {rule}, {target}", Case(task, target, {"balance": term})
        term = {"temperature_rule": "per_sample", "temperature_arguments": {"decay": 0.0}}
        yield f"balance by its temperature, {target}", Case(task, target, {"balance": term})
    ignoring: dict[str, dict[str, Any]] = {"cross_entropy": {"weight": 0.5}, "balance": {"ignore_index": VOID}}
    yield "the fast form, void", Case("segment", "void", ignoring, LARGE)
    yield "mixed labels", Case("classify", "mixed", {"cross_entropy": {"label_smoothing": 0.1}, "balance": {}})
    table = {"binary_cross_entropy": {"pos_weight": WEIGHTS}, "binary_balance": {}}
    yield "several labels, some unknown", Case("classify", "table", table)
    yield "one's own mean over samples", Case("classify", "labels", {"own": {"objective": f"{OWN}:Mean"}})


CASES = dict(cases())
WHOLE = {
    "dist": Case("classify", "labels", {"dist": {}}),
    "mlkd": Case("classify", "some", {"mlkd": {"ignore_index": -1}}),
    "rkd": Case("classify", "labels", {"cross_entropy": {"weight": 0.0}, "rkd": {}}),
    "dice": Case("segment", "void", {"dice": {}}),
}


IN_PARTS = [
    "weighted labels beside balance, void",
    "labels and two divergences, void",
    "one's own values, some",
    "the fast form, void",
    "mixed labels",
    "several labels, some unknown",
    "fitnet some",
    "ifvd void",
]


class Net(nn.Module):
    """A small student without batch norm, in float64."""

    def __init__(self, task: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        stages = (nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Conv2d(8, CLASSES, 1)
        self.dense = task == "segment"
        self.double()

    def forward(self, images: Tensor, wanted: tuple[str, ...] = ()) -> Tensor | Outputs:
        features = {}
        for number, stage in enumerate(self.stages):
            images = stage(images).tanh()
            features[f"@{number - 3}"] = images
        logits = 3 * self.head(images)
        logits = logits if self.dense else logits.mean((2, 3))
        return Outputs(logits, features) if wanted else logits


def batch(case: Case) -> tuple[Tensor, Outputs, Tensor]:
    """Images, what a teacher says of them, and their target, which counts unevenly over the samples."""
    torch.manual_seed(2)
    images = torch.randn(SAMPLES, 3, 16, 16, dtype=torch.float64)
    dense = case.task == "segment"
    teacher = Outputs(
        2 * torch.randn((SAMPLES, CLASSES, 8, 8) if dense else (SAMPLES, CLASSES), dtype=torch.float64),
        {f"@{k - 3}": torch.rand(SAMPLES, 3 + k, 16 // 2**k, 16 // 2**k, dtype=torch.float64) for k in range(3)},
    )
    shape = (SAMPLES, case.mask, case.mask) if dense else (SAMPLES,)
    target = torch.randint(CLASSES, shape)
    if case.target == "void":
        target[torch.rand(shape) < torch.linspace(0, 0.9, SAMPLES)[:, None, None]] = VOID
        target[2] = VOID
    elif case.target != "labels":
        target[[0, 2, 5]] = -1
    if case.target == "table":
        target = torch.where(target[:, None] < 0, -1, torch.randint(-1, 2, (SAMPLES, CLASSES))).to(torch.int8)
    if case.target == "mixed":
        other = target.roll(1)
        share = torch.rand(SAMPLES, 1)
        one_hot = [nn.functional.one_hot(labels.clamp(min=0), CLASSES) for labels in (target, other)]
        target = (share * one_hot[0] + (1 - share) * one_hot[1]) * ((target >= 0) & (other >= 0))[:, None]
    return images, teacher, target


class Step(NamedTuple):
    """What one step comes to."""

    gradient: dict[str, Tensor]
    parts: dict[str, float]
    nodes: set[str]
    """Names of the functions that the backward pass goes through."""


def step(case: Case, rank: int = 0, world: int = 1, alone: bool = False, parts: int = 1) -> Step:
    """One step as the trainer takes it, on this process's share of the batch; `alone`: as if that were the whole.

    `parts`: in so many, one after the other. Gradients are averaged over processes by DistributedDataParallel where
    masks are large, else by who asks.
    """
    images, teacher, target = batch(case)
    own_code.name(case.terms)
    terms = {name: Term.model_validate(arguments) for name, arguments in case.terms.items()}
    objective = DenseSum(terms, void=VOID) if case.task == "segment" else WeightedSum(terms)
    net = Net(case.task)
    if objective.student_features:
        with torch.no_grad():
            example = net(images[:2], objective.student_features)
        assert isinstance(example, Outputs)
        torch.manual_seed(3)
        objective.prepare(
            example, Outputs(teacher.logits[:2], {k: v[:2] for k, v in teacher.features.items()}), SAMPLES
        )
    objective.set_progress(1.0)
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    first, stop = SAMPLES * rank // world, SAMPLES * (rank + 1) // world
    cuts = [first + (stop - first) * part // parts for part in range(parts + 1)]
    processes = Processes(rank, world, torch.device("cpu"))
    world = 1 if alone else world
    together = processes.add if world > 1 else None
    loss = StudentLoss(net, objective, torch.float32, together)  # type: ignore[arg-type]
    shared: nn.Module = DistributedDataParallel(loss) if world > 1 and case.mask == LARGE else loss
    whole = InParts([target[a:b] for a, b in pairwise(cuts[1:])]) if parts > 1 else None
    values: Counter[str] = Counter()
    nodes: set[str] = set()
    for number, share in enumerate(slice(a, b) for a, b in pairwise(cuts)):
        here = Outputs(teacher.logits[share], {name: value[share] for name, value in teacher.features.items()})
        wait = isinstance(shared, DistributedDataParallel) and number < parts - 1
        with shared.no_sync() if wait else nullcontext():
            total, named = shared(images[share], here, target[share], whole)
            nodes |= set(_names(total))
            total.backward()
        values.update({name: value.item() for name, value in named.items()})
    gradient = {name: p.grad for name, p in loss.named_parameters() if p.grad is not None}
    return Step(gradient, dict(values), nodes)


def _names(total: Tensor) -> Iterator[str]:
    waiting, seen = [total.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield type(node).__name__
        waiting.extend(following for following, _ in node.next_functions)


def all_steps(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world)
    steps = {name: step(case, rank, world) for name, case in {**CASES, **WHOLE}.items()}
    if world == 2:
        steps |= {f"{name} in parts": step(CASES[name], rank, world, parts=2) for name in IN_PARTS}
    torch.save({name: tuple(one) for name, one in steps.items()}, folder / f"{rank}.pt")
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "spare": nn.Linear(2, 2)})
    net.forward = lambda pixels: net["used"](pixels)  # type: ignore[method-assign, assignment]
    shared = DistributedDataParallel(net)
    shared(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ConfigError, match=r"2 parameters that are to be trained \(spare.weight, spare.bias\)"):
        require_reached(shared)
    dist.destroy_process_group()


def together(world: int, folder: Path) -> list[dict[str, Step]]:
    """All cases, as each of so many processes has them."""
    fork = multiprocessing.get_context("fork")  # torch is imported already
    children = [fork.Process(target=all_steps, args=(rank, world, folder)) for rank in range(world)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]
    return [{name: Step(*one) for name, one in steps.items()} for steps in found]


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Step]]:
    return together(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Step]]:
    return together(4, tmp_path_factory.mktemp("four"))


def mean(values: Iterable[Any]) -> Any:
    values = list(values)
    return sum(values[1:], start=values[0]) / len(values)


def check(name: str, several: list[dict[str, Step]], called: str = "") -> None:
    one = step(CASES[name])
    several = [{name: steps[called or name]} for steps in several]
    largest = max(float(value.abs().max()) for value in one.gradient.values())
    assert largest > 0
    for parameter, value in one.gradient.items():
        found = mean(steps[name].gradient[parameter] for steps in several)
        assert float((found - value).abs().max()) <= 1e-10 * largest, parameter
    for part, value in one.parts.items():
        found = mean(steps[name].parts[part] for steps in several)
        assert found == pytest.approx(value, rel=1e-10, abs=1e-12), part


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_and_the_terms_of_one(name: str, two: list[dict[str, Step]]) -> None:
    check(name, two)


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_have_the_gradient_and_the_terms_of_all_of_it(name: str) -> None:
    if any("decay" in part for part in re.findall(r"\w+", repr(CASES[name].terms))):
        pytest.skip("its rule looks at each part as at a batch of its own, see below")
    check(name, [{name: step(CASES[name], parts=4)}])


@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_in_two_processes_have_the_gradient_and_the_terms_of_one(name: str, two: list[dict[str, Step]]) -> None:
    check(name, two, f"{name} in parts")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_four_processes_have_the_gradient_and_the_terms_of_one(name: str, four: list[dict[str, Step]]) -> None:
    check(name, four)


@pytest.mark.parametrize("name", WHOLE)
def test_what_looks_at_the_whole_batch_sees_a_share_and_counts_by_its_size(
    name: str, two: list[dict[str, Step]]
) -> None:
    case = WHOLE[name]
    target = batch(case)[2]
    counted = (target != VOID) & ((target >= 0) | (name != "mlkd"))
    sizes = [int(counted[:4].sum()), int(counted[4:].sum())]
    alone = [step(case, rank, 2, alone=True) for rank in range(2)]
    for parameter in two[0][name].gradient:
        found = mean(steps[name].gradient[parameter] for steps in two)
        expected = sum(size / sum(sizes) * one.gradient[parameter] for size, one in zip(sizes, alone, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_all_objectives_but_those_on_whole_batches_are_compared() -> None:
    kinds = {term.get("objective", name) for case in CASES.values() for name, term in case.terms.items()}
    assert set(entries()) - kinds == WHOLE_BATCH


@pytest.mark.parametrize("name", ["the fast form, void", "labels and two divergences, void"])
def test_the_fast_form_of_masks_is_what_several_processes_differentiate(name: str, two: list[dict[str, Step]]) -> None:
    for steps in two:
        assert "FusedLossBackward" in steps[name].nodes
    for parameter, value in two[0][name].gradient.items():
        torch.testing.assert_close(two[1][name].gradient[parameter], value, rtol=0, atol=0)
