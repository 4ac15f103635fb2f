"""The search for layers to keep in float, and training with rounded layers."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from counterpoise.data.sources.arrays import ArraySet
from counterpoise.deploy import base, pictures, sensitivity
from counterpoise.deploy.fake_quantization import fake_quantized, layers_of
from counterpoise.deploy.job import calibrated, prepare
from counterpoise.deploy.network import Deployed
from counterpoise.deploy.options import Export
from counterpoise.engine.student import load_student
from counterpoise.errors import DisagreementError

Run = Callable[..., tuple[int, str, str]]


def test_rounding_leaves_the_network_as_it_was_and_passes_gradients(digits_run: Path) -> None:
    pytest.importorskip("torchao")
    network = Deployed(load_student(digits_run))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    plain = network(pixels)
    with fake_quantized(network, largest=127):
        rounded = network(pixels)
        rounded.square().sum().backward()
    difference = (rounded - plain).abs().max()
    assert 0 < difference < 0.1 * plain.abs().max()
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name in layers_of(network):
        weight = network.get_parameter(f"{name}.weight")
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    assert torch.equal(network(pixels), plain)


@pytest.mark.parametrize("largest", [127, 64])
def test_a_weight_is_rounded_to_the_steps_of_its_channel_that_the_format_has(digits_run: Path, largest: int) -> None:
    pytest.importorskip("torchao")
    network = Deployed(load_student(digits_run))
    name = layers_of(network)[0]
    layer = network.get_submodule(name)
    seen = []
    with fake_quantized(network, [name], largest=largest):
        hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(module.weight.detach().clone()))
        network(torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8))
        hook.remove()
    weight = layer.get_parameter("weight")
    step = weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1) / largest
    assert torch.allclose(seen[0], (weight / step).round() * step, atol=1e-6)


@pytest.mark.parametrize(("total", "calibrated"), [(367, 256), (45_000, 256), (900, 64), (8, 7)])
def test_no_calibration_image_judges_the_loss(total: int, calibrated: int) -> None:
    images = ArraySet(torch.zeros(total, 3, 1, 1, dtype=torch.uint8), torch.arange(total), ())
    shown = set(pictures.spread(images, calibrated).labels.tolist())
    judging = sensitivity._others(images, 2000, calibrated).labels.tolist()
    assert len(judging) == len(set(judging)) == min(2000, total - calibrated)
    assert not shown & set(judging)


def test_all_images_judge_where_all_are_for_calibration() -> None:
    images = ArraySet(torch.zeros(5, 3, 1, 1, dtype=torch.uint8), torch.arange(5), ())
    assert sensitivity._others(images, 2000, 256).labels.tolist() == list(range(5))


@pytest.mark.slow
def test_the_layer_that_rounding_hurts_most_is_the_first_to_stay_in_float(digits_run: Path, tmp_path: Path) -> None:
    job = prepare(digits_run, base.find("onnx"), Export(to="onnx", precision="int8"))
    # One channel a thousand times larger than the others, undone behind it: weights by channel do not mind, but all
    # channels of what the next layer is given share one step.
    convolution, normalization = (job.student.net.get_submodule(f"features.stage1.{index}") for index in (0, 1))
    following = job.student.net.get_submodule("features.stage2.0")
    with torch.no_grad():
        normalization.weight[0] *= 1000
        normalization.bias[0] *= 1000
        following.weight[:, 0] /= 1000
    assert isinstance(convolution, torch.nn.Conv2d)
    job = job._replace(network=Deployed(job.student))
    calibration = calibrated(job, {"images": 64})
    ranking = sensitivity.sensitivities(job.network, calibration.pixels, job.format.largest_weight)
    assert ranking[0][0] == "student.net.features.stage2.0"
    assert ranking[0][1] > 10 * ranking[1][1]
    chosen, trials = sensitivity.choose(job, calibration, within=0.5)
    assert chosen.keep[0] == "student.net.features.stage2.0"
    assert trials[0].kept == 0
    assert trials[0].loss > 0.5 >= trials[-1].loss
    relieved, found = sensitivity.relieved(job, calibration, DisagreementError("no", "60.00% of the answers"))
    assert found["without"] == "60.00% of the answers"
    assert found["trials"][-1]["same"] >= sensitivity.AIMED_AT
    assert len(relieved.keep) == found["trials"][-1]["kept"]


def test_a_student_made_ready_for_8_bits_is_a_student(digits_run: Path, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    code, out, err = run("finetune", digits_run, "--out", "ready", "--epochs", "1", "--quiet", "--json")
    assert code == 0, err
    before, after = load_student(digits_run), load_student(tmp_path / "ready")
    stated = before.description.metrics["last"]["top1"]
    assert json.loads(out)["teacher"]["top1"] == pytest.approx(stated)  # its own float self
    shipped = json.loads(run("evaluate", "ready", "--json")[1])  # in float, as it ships, though it learned rounded
    assert json.loads(out)["last"] == {"epoch": 1, **{name: shipped[name] for name in ("top1", "top5", "loss")}}
    lines = [json.loads(line) for line in Path("ready/metrics.jsonl").read_text().splitlines()]
    scores = next(line["val"] for line in lines if line["kind"] == "epoch")  # which the best epoch is chosen by
    assert scores == pytest.approx({name: shipped[name] for name in scores}, rel=1e-6)
    assert list(after.weights()) == list(before.weights())
    assert after.description.architecture == before.description.architecture
    assert not torch.equal(next(iter(after.parameters())), next(iter(before.parameters())))
    statistics = {name: value for name, value in before.weights().items() if "running" in name}
    assert statistics
    assert all(torch.equal(after.weights()[name], value) for name, value in statistics.items())
    code, out, err = run("export", "ready", "--to", "onnx", "--precision", "int8", "--json")
    assert code == 0, err
    assert json.loads(out)["agreement"]["same"] > 80


@pytest.fixture
def tune(digits_run: Path, host: Any) -> Callable[..., bool]:
    """Fine-tunes in a child into a folder, or goes on in it; killed once `kill_when` is so. Whether it was."""

    def tune(out: Path, kill_when: Callable[[], bool] = lambda: False, epochs: int = 4) -> bool:
        again = ["--resume"] if out.exists() else []
        command = ["finetune", str(digits_run), "--out", str(out), "--epochs", str(epochs), "--quiet", *again]
        killed: bool = host.kill(command, kill_when)
        return killed

    return tune


def same_end(one: Path, other: Path) -> bool:
    files = ("student/model.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
    tensors = ((load_file(one / file), load_file(other / file)) for file in files)
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in tensors)


@pytest.mark.slow
def test_killed_fine_tuning_goes_on_to_the_same_weights(tune: Callable[..., bool], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert not tune(whole)
    metrics = killed / "metrics.jsonl"
    for epochs in (1, 2):
        assert tune(killed, lambda n=epochs: metrics.exists() and metrics.read_text().count('"kind": "epoch"') >= n)
    assert not tune(killed)
    assert same_end(killed, whole)
    assert not any("rounding" in name for name in load_file(killed / "student" / "model.safetensors"))


@pytest.mark.slow
def test_fine_tuning_bears_20_kills_at_any_moment(tune: Callable[..., bool], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tune(tmp_path / "warm", epochs=1)
    start = time.perf_counter()
    assert not tune(whole, epochs=12)
    seconds, kills, moments = time.perf_counter() - start, 0, random.Random()
    while kills < 20:
        end = time.perf_counter() + moments.uniform(0, 0.3 * seconds)
        kills += tune(killed, lambda at=end: time.perf_counter() > at, epochs=12) and killed.exists()
    assert not tune(killed, epochs=12)
    assert same_end(killed, whole)


def test_what_cannot_be_searched_or_kept_is_said(digits_run: Path, run: Run) -> None:
    code, _, err = run("export", digits_run, "--to", "onnx", "--within", "0.5", "--out", "new")
    assert (code, "precision is float32" in err) == (2, True)
    code, _, err = run("export", digits_run, "--to", "onnx", "--precision", "int8", "--within", "-1", "--out", "new")
    assert (code, "within must be 0 or more points, got -1" in err) == (2, True)
    code, _, err = run("finetune", digits_run, "--keep", "student.net.clasifier", "--out", "new", "--quiet")
    assert (code, "Did you mean --keep student.net.classifier?" in err) == (2, True)
    code, _, err = run("finetune", digits_run, "--teacher", digits_run, "--store", "s", "--out", "new")
    assert (code, "either of them" in err) == (2, True)
    assert not Path("new").exists()
