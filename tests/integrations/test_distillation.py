from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import counterpoise
from counterpoise.errors import ConfigError, ModelError, RunError, StoreError
from counterpoise.models.digits import DigitsNetwork

STUDENT = {"model": "digits/cnn_4_8"}


def descend(distillation: counterpoise.Distillation, epochs: int = 2, momentum: float = 0.9) -> list[float]:
    """A loop of one's own, which knows nothing of epochs."""
    optimizer = torch.optim.SGD(distillation.network.parameters(), 0.05, momentum=momentum, weight_decay=1e-4)
    losses = []
    for _ in range(epochs):
        distillation.network.train()
        for pixels, batch in distillation.loader:
            loss = distillation.loss(distillation.network(pixels), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_a_loop_of_ones_own_has_the_losses_and_scores_of_distill(
    taught: Any, ours: Callable[..., Any], equal: Callable[..., None], kind: str, tmp_path: Path
) -> None:
    run = {**getattr(taught, kind), "student": STUDENT}
    distillation = counterpoise.Distillation(run)
    save_file(distillation.student.weights(), tmp_path / "start.safetensors")
    theirs = descend(distillation)
    expected = ours(run, tmp_path / "start.safetensors")
    equal(expected.losses, theirs)
    found = distillation.evaluate()
    assert found["top1"] == expected.last["top1"]
    assert ("gauge/forward_kl" in found) == (kind == "live")


def test_the_student_folder_answers_without_its_teacher(taught: Any, tmp_path: Path) -> None:
    distillation = counterpoise.Distillation({**taught.live, "student": STUDENT})
    descend(distillation)
    folder = distillation.save(tmp_path / "student", by="a test")
    student = counterpoise.load_student(folder)
    assert student.description.provenance["trained_by"] == "a test"
    assert student.description.provenance["teacher"]["metrics"]["top1"] > 10
    assert counterpoise.evaluate(folder, data=taught.live)["top1"] == distillation.evaluate()["top1"]
    assert distillation.save(folder) == folder  # over an older one
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="no student folder"):
        distillation.save(tmp_path / "other")


def test_an_epoch_is_over_with_its_last_batch(taught: Any, tmp_path: Path) -> None:
    """Tools that count steps ask for no more, and the student folder named the epoch before."""
    distillation = counterpoise.Distillation({**taught.stored, "student": STUDENT})
    for _ in range(2):
        assert len(list(zip(range(len(distillation.loader)), distillation.loader, strict=False))) == 10
    folder = distillation.save(tmp_path / "student")
    description = counterpoise.load_student(folder).description
    assert description.provenance["epoch"] == {"ships": "last", "number": 2, "of": 2}
    assert description.metrics["last"]["epoch"] == 2


def test_a_student_folder_tells_of_which_epoch_its_weights_are(taught: Any, tmp_path: Path) -> None:
    """The best weights were called those of the last epoch, and half an epoch none."""
    distillation = counterpoise.Distillation({**taught.stored, "student": STUDENT})
    next(iter(distillation.loader))
    expected = {"last": {"number": 0.1}, "best": {"number": 1, "best": 1, "by": "top1"}}
    for ships, best in (("last", None), ("best", (1.0, "top1"))):
        folder = distillation.save(tmp_path / ships, best=best)
        description = counterpoise.load_student(folder).description
        assert description.provenance["epoch"] == {"ships": ships, "of": 2, **expected[ships]}
        assert description.metrics[ships]["epoch"] == expected[ships]["number"]
    assert "The best epoch, 1, was chosen by top1" in (tmp_path / "best" / "README.md").read_text()
    distillation.loader.set_epoch(1)
    assert distillation.loader.given == 10


def test_scores_and_shipping_leave_the_mode_of_each_part_as_found(taught: Any, tmp_path: Path) -> None:
    """A network in eval mode was in train mode afterwards, and batch norms that a script holds in eval mode moved."""
    distillation = counterpoise.Distillation({**taught.live, "student": STUDENT})
    network = distillation.network
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    for mode in (True, False):
        network.train(mode)
        norm.train(not mode)
        modes = [module.training for module in network.modules()]
        distillation.evaluate()
        distillation.save(tmp_path / "student", AveragedModel(network))
        distillation.save(tmp_path / "student")
        assert [module.training for module in network.modules()] == modes


def test_frozen_parts_keep_their_statistics(taught: Any) -> None:
    student = {**STUDENT, "freeze": ["features.stage1*"]}
    network = DigitsNetwork((4, 8))
    for given in (None, network):
        distillation = counterpoise.Distillation({**taught.stored, "student": student}, student=given)
        before = copy.deepcopy(distillation.network.state_dict())
        descend(distillation, epochs=1)
        after = distillation.network.state_dict()
        still = {name for name in before if torch.equal(before[name], after[name])}
        assert still == {name for name in before if name.startswith("features.stage1")} != set()


def test_a_store_of_other_views_is_refused(taught: Any) -> None:
    other = {**taught.stored["data"], "views": {"crop": "pad", "padding": 2}}
    with pytest.raises(StoreError, match="padding"):
        counterpoise.Distillation({**taught.stored, "student": STUDENT, "data": other})


def test_images_that_are_not_the_runs_need_the_teacher_itself(taught: Any) -> None:
    pixels, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    stored = counterpoise.Distillation({**taught.stored, "student": STUDENT})
    with pytest.raises(ConfigError, match="a store knows no others"):
        stored.teach(pixels, labels)
    with pytest.raises(ConfigError, match=r"a Tensor where a batch of distillation\.loader goes"):
        stored.loss(stored.network(pixels), labels)  # type: ignore[arg-type]
    for other, named in ((pixels.byte(), r"a tensor \[2, 3, 8, 8\] of uint8"), (pixels.numpy(), "numpy.ndarray"),
                         (pixels[0], r"a tensor \[3, 8, 8\]")):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"normalized floats \[B, 3, H, W\], got {named}.*student.normalize"):
            stored.teach(other, labels)


def test_the_teacher_sees_other_images_as_the_student_does(taught: Any) -> None:
    live = counterpoise.Distillation({**taught.live, "student": STUDENT}, steps=5)
    pixels, batch = next(iter(live.loader))
    other = live.teach(pixels, batch.labels)
    assert other.teacher is not None
    assert batch.teacher is not None
    torch.testing.assert_close(other.teacher.logits, batch.teacher.logits, rtol=1e-4, atol=1e-4)
    assert (other.step, live.teach(pixels, batch.labels).step) == (0, 1)


def test_schedules_of_a_loops_own_images_need_the_number_of_steps(taught: Any) -> None:
    """They followed the run's own steps: of another loader they ended too early or too late."""
    run = {**taught.live, "student": STUDENT}
    pixels, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ConfigError, match=r"moves with training \(balance\.weight\).* Give steps="):
        counterpoise.Distillation(run).teach(pixels, labels)

    def weights(distillation: counterpoise.Distillation, count: int) -> list[float]:
        found = []
        for _ in range(count):
            distillation.loss(distillation.network(pixels), distillation.teach(pixels, labels))
            found.append(distillation.parts.objective.moving()["balance.weight"])
        return found

    live = counterpoise.Distillation(run, steps=5)
    assert weights(live, 3) == [0.5, 0.75, 1.0]
    again = counterpoise.Distillation(run, steps=5)
    again.load_state_dict(live.state_dict())
    assert weights(again, 3) == [1.25, 1.5, 1.5]
    still = counterpoise.Distillation({**run, "objective": {"balance": {}}})
    assert still.teach(pixels, labels).step == 0
    assert torch.equal(still.teach(pixels, [0, 1]).labels, labels)


def test_the_averages_of_an_objective_go_on(taught: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """They began anew after a resume, and the loss jumped."""
    tuned = {"rule": "self_tuning", "reverse_temperature": 8.0, "rule_arguments": {"minimum": 0.01, "maximum": 100.0}}
    run = {**taught.stored, "student": STUDENT, "objective": {"cross_entropy": {}, "balance": tuned}}
    one, other = counterpoise.Distillation(run), counterpoise.Distillation(run)
    start = copy.deepcopy(one.network.state_dict())
    whole = descend(one, momentum=0.0)
    one.network.load_state_dict(start)
    first = counterpoise.Distillation(run, student=one.network)
    begun = descend(first, epochs=1, momentum=0.0)
    other.network.load_state_dict(first.network.state_dict())
    other.load_state_dict(first.state_dict())
    other.loader.set_epoch(1)
    assert begun + descend(other, epochs=1, momentum=0.0) == whole
    other.load_state_dict(None)
    assert "they begin anew" in capsys.readouterr().err
    plain = counterpoise.Distillation({**run, "objective": {"balance": {}}})
    with pytest.raises(RunError, match="does not fit this run"):
        plain.load_state_dict(first.state_dict())
    plain.load_state_dict(None)
    assert not capsys.readouterr().err


def test_more_epochs_than_the_run_has_are_refused(taught: Any, capsys: pytest.CaptureFixture[str]) -> None:
    distillation = counterpoise.Distillation({**taught.stored, "student": STUDENT})
    distillation.loader.set_epoch(2)
    with pytest.raises(ConfigError, match="Epoch 3 is asked for, and the run has 2"):
        next(iter(distillation.loader))
    for wrong in (-1, 0.5, "a"):
        with pytest.raises(ConfigError, match=f"Epochs are counted from 0, got {wrong!r}"):
            distillation.loader.set_epoch(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"epochs=3 makes 3 epochs, and the run has 2 \(train.epochs\)"):
        counterpoise.Distillation({**taught.stored, "student": STUDENT}, epochs=3)
    distillation.require_epochs(2, "epochs=2")
    assert not capsys.readouterr().err
    distillation.require_epochs(0.5, "steps=5")
    assert "steps=5 makes 0.5 epochs, and the run has 2 (train.epochs): training ends before" in capsys.readouterr().err


def test_another_network_than_the_run_names_is_refused(taught: Any) -> None:
    with pytest.raises(ModelError, match=r"The run's student is digits/cnn_4_8 of 10 classes"):
        counterpoise.Distillation({**taught.live, "student": STUDENT}, student=DigitsNetwork((16, 32)))


def test_a_network_without_a_name_needs_its_code_to_be_loaded(taught: Any, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    distillation = counterpoise.Distillation(taught.live, student=net)
    assert distillation.network is net
    folder = distillation.save(tmp_path / "student")
    with pytest.raises(ModelError, match="code that a student folder does not bring"):
        counterpoise.load_student(folder)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    loaded = counterpoise.load_student(folder, model=fresh)
    assert torch.equal(loaded.net[1].weight, net[1].weight)  # type: ignore[index]


class Scaled(nn.Module):
    """Another function than the network that it holds, under the name that wrappers use."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: torch.Tensor) -> Any:
        return -self.module(pixels)


def test_a_network_that_holds_another_as_module_is_itself(taught: Any, tmp_path: Path) -> None:
    net = Scaled(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    distillation = counterpoise.Distillation(taught.live, student=net)
    assert distillation.network is net
    folder = distillation.save(tmp_path / "student", net)
    loaded = counterpoise.load_student(folder, model=Scaled(nn.Sequential(nn.Flatten(), nn.Linear(192, 10))))
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(pixels), net(loaded.normalize(pixels)))
    with pytest.raises(
        ModelError, match="A Scaled holds such a one as `module`: give that, where it computes the same"
    ):
        counterpoise.Distillation({**taught.live, "student": STUDENT}, student=Scaled(DigitsNetwork((4, 8))))


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, partial(torch.compile, backend="eager")])
def test_what_wraps_a_network_is_taken_off(taught: Any, tmp_path: Path, wrap: Callable[..., nn.Module]) -> None:
    net = DigitsNetwork((4, 8))
    distillation = counterpoise.Distillation({**taught.live, "student": STUDENT}, student=wrap(net))
    assert type(distillation.network) is DigitsNetwork
    folder = distillation.save(tmp_path / "student", wrap(distillation.network))
    saved = counterpoise.load_student(folder).net.state_dict()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in saved.items())


def test_an_objective_with_weights_of_its_own_is_refused(taught: Any) -> None:
    with pytest.raises(ConfigError, match=r"fitnet looks at features of the student"):
        counterpoise.Distillation({**taught.live, "student": STUDENT, "objective": {"fitnet": {}}})


def test_weights_lie_as_tools_save_them(taught: Any) -> None:
    """Where bf16 has instructions, our own loop has channels innermost, which safetensors does not take."""
    run = {**taught.stored, "student": STUDENT, "train": {**taught.stored["train"], "precision": "bf16"}}
    network = counterpoise.Distillation(run).network
    assert all(value.is_contiguous() for value in network.state_dict().values())


def test_weights_lie_as_the_script_has_laid_them(taught: Any) -> None:
    net = DigitsNetwork((4, 8)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own = nn.Sequential(net)
    named = counterpoise.Distillation({**taught.stored, "student": STUDENT}, student=net)
    pixels = [next(iter(each.loader))[0] for each in (named, counterpoise.Distillation(taught.stored, student=own))]
    for value in (*pixels, next(value for value in net.parameters() if value.ndim == 4)):
        assert value.is_contiguous(memory_format=torch.channels_last)


def test_a_network_in_bfloat16_is_scored_and_shipped_in_float32(taught: Any, tmp_path: Path) -> None:
    """After all epochs, writing the student failed."""
    distillation = counterpoise.Distillation({**taught.stored, "student": STUDENT})
    network = distillation.network.to(torch.bfloat16)
    pixels, batch = next(iter(distillation.loader))
    distillation.loss(network(pixels.bfloat16()), batch).backward()
    expected = distillation.evaluate()
    folder = distillation.save(tmp_path / "student")
    loaded = counterpoise.load_student(folder)
    saved = network.state_dict()
    assert next(network.parameters()).dtype == torch.bfloat16
    for name, value in loaded.net.state_dict().items():
        assert value.dtype != torch.bfloat16
        assert torch.equal(value, saved[name].to(value.dtype))
    assert counterpoise.evaluate(folder, data=taught.stored)["top1"] == expected["top1"]


TOGETHER = """
import json, sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from counterpoise import Distillation
run = json.loads(sys.argv[1])
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
together = sys.argv[2] == "2"
if together:
    torch.distributed.init_process_group("gloo")
distillation = Distillation(run, student=net)
model = DistributedDataParallel(net) if together else net
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
losses = []
for epoch in range(2):
    distillation.loader.set_epoch(epoch)
    for pixels, batch in distillation.loader:
        loss = distillation.loss(model(pixels), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(distillation.processes.add(loss.detach()).item() / distillation.processes.world)
top1 = distillation.evaluate(model)["top1"]
distillation.save(sys.argv[3], model)
if distillation.processes.first:
    print(json.dumps([losses, top1]))
if together:
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(taught: Any, equal: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(TOGETHER)
    found = []
    for count, launch in (("1", []), ("2", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"])):
        command = [sys.executable, *launch, tmp_path / "loop.py", json.dumps(taught.stored), count, tmp_path / count]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    equal(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], abs=0.1)


def test_processes_that_have_not_met_are_told_to(taught: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="have not met"):
        counterpoise.Distillation({**taught.stored, "student": STUDENT})
