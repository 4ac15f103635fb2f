"""The command line on real files: what it prints, and how it refuses what cannot be."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from counterpoise.commands import app, flags

Run = Callable[..., tuple[int, str, str]]
DIGITS = ["--data.source", "digits", "--data.options.train_size", "100"]
SCENES = ["train", "--task", "segmentation", "--data.source", "digit_scenes", "--student.model", "digits/unet_4_8"]
FAST = ["--train.epochs", "2", "--train.precision", "fp32", "--train.device", "cpu", "--quiet"]


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained a small teacher of digits."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    assert app.run(["train", *DIGITS, *FAST, "--student.model", "digits/cnn_8_16", "--out", str(out)]) == 0
    return out


def test_help_waits_for_nothing_heavy() -> None:
    script = (
        "import sys\nfrom counterpoise.commands import app\napp.run(['--help'])\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'numpy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "distill" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_train_distill_evaluate_and_predict(run: Run, teacher: Path, tmp_path: Path) -> None:
    arguments = [
        *DIGITS,
        *FAST,
        "--student.model",
        "digits/cnn_4_8",
        "--teacher.checkpoint",
        teacher,
        "--teacher.accept_chance",
        "--out",
        "student",
    ]
    code, out, _ = run("distill", *arguments, "--objective.balance.weight", "2", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["epochs"] == 2
    assert {"top1", "top5", "loss", "epoch"} <= set(result["last"])
    assert result["last"]["epoch"] == 2
    assert result["best"]["top1"] >= result["last"]["top1"]
    assert 0 < result["teacher"]["top1"] < 100

    code, out, _ = run("evaluate", "student", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["top1"] == pytest.approx(result["last"]["top1"], abs=1e-3)
    assert {"top5", "balanced_accuracy", "macro_f1", "calibration_error"} <= set(report)
    assert [row["class"] for row in report["per_class"]] == [str(digit) for digit in range(10)]

    from PIL import Image

    from counterpoise.config import Data
    from counterpoise.data import sources

    digit = sources.load(Data(source="digits")).val.read(0)
    Image.fromarray(digit.permute(1, 2, 0).numpy()).save(tmp_path / "digit.png")
    code, out, _ = run("predict", "digit.png", "digit.png", "--student", "student", "--json")
    assert code == 0
    answers = json.loads(out)
    assert len(answers) == 2
    assert answers[0]["top"][0]["class"] == answers[0]["class"]
    assert sum(item["probability"] for item in answers[0]["top"]) <= 1.0001
    assert run("evaluate", "student")[0] == run("predict", "digit.png", "--student", "student")[0] == 0


def test_flags_override_the_run_file_and_train_leaves_the_teacher_out(run: Run, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "data: {source: digits, options: {train_size: 100}}\n"
        f"teacher: {{checkpoint: {teacher}, accept_chance: true}}\n"
        "student: {model: digits/cnn_4_8}\nobjective: {cross_entropy: {weight: 0.1}, balance: {reverse_weight: 2}}\n"
        "train: {epochs: 9, precision: fp32, device: cpu}\n"
    )
    assert run("train", "run.yaml", "--train.epochs", "1", "--out", "alone", "--quiet")[0] == 0
    import yaml

    resolved = yaml.safe_load((tmp_path / "alone" / "run.yaml").read_text())
    assert resolved["train"]["epochs"] == 1
    assert resolved["teacher"] is None
    assert list(resolved["objective"]) == ["cross_entropy"]
    assert resolved["objective"]["cross_entropy"]["weight"] == 1.0
    found = json.loads((tmp_path / "alone" / "data.json").read_text())
    assert any(note.startswith("train leaves out the teacher, and with it balance: ") for note in found["notes"])
    terms = ["--objective.focal.weight", "2", "--objective.cross_entropy.weight", "3"]
    assert run("train", "run.yaml", *terms, "--train.epochs", "1", "--out", "labels", "--quiet")[0] == 0
    resolved = yaml.safe_load((tmp_path / "labels" / "run.yaml").read_text())
    assert {name: term["weight"] for name, term in resolved["objective"].items()} == {"focal": 2, "cross_entropy": 3}
    flags = ["--train.epochs", "1", "--objective.balance.forward_temperature", "3", "--quiet"]
    assert run("distill", "run.yaml", *flags, "--out", "both")[0] == 0
    resolved = yaml.safe_load((tmp_path / "both" / "run.yaml").read_text())
    assert resolved["objective"]["balance"] == {
        "weight": 1.0,
        "objective": None,
        "reverse_weight": 2,
        "forward_temperature": 3,
    }


@pytest.mark.parametrize(
    ("flags", "terms"),
    [
        (["--objective.forward_kl.weight", "3.6"], {"forward_kl": 3.6}),
        (["--objective.balance.reverse_weight", "2"], {"balance": 1.0}),
        ([], {"cross_entropy": 1.0, "balance": 1.0}),
    ],
)
def test_a_term_that_is_named_by_flag_replaces_the_default_objective(
    run: Run, teacher: Path, flags: list[str], terms: dict[str, float]
) -> None:
    import yaml

    arguments = [*DIGITS, *FAST[:-1], "--student.model", "digits/cnn_4_8", "--out", "student"]
    weak = ["--teacher.checkpoint", teacher, "--teacher.accept_chance"]
    code, _, said = run("distill", *arguments, *weak, *flags)
    assert code == 0
    kept = yaml.safe_load(Path("student", "run.yaml").read_text())["objective"]
    assert {name: term["weight"] for name, term in kept.items()} == terms
    told = [f"{weight:g} x {name}" for name, weight in terms.items()]
    assert all(words in next(line for line in said.splitlines() if line.startswith("loss ")) for words in told)


def test_resuming_a_finished_run_says_that_nothing_was_done(run: Run, teacher: Path) -> None:
    before = {file: file.read_bytes() for file in teacher.rglob("*") if file.is_file()}
    refused(run("train", "--resume", teacher), f"`--out {teacher} --resume` goes on with that run", "run.yaml")
    Path("labels.csv").write_text("file,label\n")
    refused(run("train", "labels.csv"), "is no run file. Is it the data? --data labels.csv")
    code, out, _ = run("train", "--out", teacher, "--resume", "--quiet")
    assert code == 0
    assert "Nothing was done" in out
    assert f"--student.checkpoint {teacher}" in " ".join(out.split())
    assert json.loads(run("train", "--out", teacher, "--resume", "--quiet", "--json")[1])["note"].startswith("Nothing")
    assert {file: file.read_bytes() for file in teacher.rglob("*") if file.is_file()} == before


def test_piped_output_has_a_line_an_epoch_with_the_time_and_what_is_left(run: Run) -> None:
    arguments = [*DIGITS, *FAST[:-1], "--student.model", "digits/cnn_4_8", "--out", "student"]
    code, _, said = run("train", *arguments)
    assert code == 0
    epochs = [line for line in said.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert all(re.match(r"epoch \d/2  \d+ (s|min), \d+ (s|min) left  top1 ", line) for line in epochs)
    assert ", 0 s left" in epochs[-1]


def test_milestones_beyond_the_run_are_refused_and_a_run_that_has_them_goes_on(run: Run) -> None:
    """A run of an older version, whose default milestones were epochs, has them written out."""
    arguments = [*DIGITS, *FAST[:-1], "--student.model", "digits/cnn_4_8", "--train.schedule.name"]
    late = ["multistep", "--train.schedule.milestones", "150", "180", "210"]
    refused(run("train", *arguments, *late, "--out", "late"), "150, 180, 210 lie beyond the run, which has 2 epochs")
    assert not Path("late").exists()
    assert run("train", *arguments, "multistep", "--out", "student")[0] == 0
    file = Path("student", "run.yaml")
    text = file.read_text()
    given = "data: {source: digits, options: {train_size: 100}}\nstudent: {model: digits/cnn_4_8}\n"
    for name, code in (("multistep", 2), ("cosine", 0)):
        plan = f"train: {{epochs: 2, precision: fp32, device: cpu, schedule: {{name: {name}}}}}\n"
        Path("mine.yaml").write_text(given + plan)
        kept = re.sub(r"(?<=milestones:\n)( +- [\d.]+\n)+", "    - 150.0\n    - 180.0\n    - 210.0\n", text)
        file.write_text(kept.replace("name: multistep", f"name: {name}"))
        Path("student", "summary.json").unlink(missing_ok=True)
        found, _, error = run("train", "mine.yaml", "--out", "student", "--resume")
        assert found == code, error
        refusal = "train.schedule.milestones: [150.0, 180.0, 210.0] there, [1.25, 1.5, 1.75] given"
        assert (refusal in error) == (code == 2)
        Path("student", "summary.json").unlink(missing_ok=True)
        assert ("lie beyond the run" in run("train", "--out", "student", "--resume")[2]) == (name == "multistep")
        assert run("evaluate", "student")[0] == 0


@pytest.mark.parametrize("what", ["objectives", "models", "sources"])
def test_lists(run: Run, what: str) -> None:
    code, out, _ = run("list", what, "--json")
    assert code == 0
    names = {row["name"] for row in json.loads(out)}
    assert (
        names
        >= {
            "objectives": {"balance", "forward_kl", "reverse_kl", "cross_entropy"},
            "models": {"cifar/resnet20", "digits/cnn_4_8", "timm/mobilenetv3_small_100", "torchvision/resnet18"},
            "sources": {"image_folder", "cifar", "huggingface", "digits", "photos"},
        }[what]
    )
    if what == "sources":
        options = {row["name"]: row["options"] for row in json.loads(out)}
        assert {"ignore", "resize_masks"} <= set(options["masks_folder"])
        assert options["digits"]
    code, out, _ = run("list", what)
    assert code == 0
    assert what != "sources" or "resize_masks" in out
    assert all(name in out.replace("\n", "") for name in ("balance", "cifar/resnet20", "digits") if name in names)


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith("Error: ")
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["distil"], ["distill"]),
        (["train", "--trian.epochs", "3"], ["--train.epochs"]),
        (["train", "--train.epoch", "3"], ["--train.epochs"]),
        (["train", "--train.epochs", "many"], ["train.epochs", "integer", "'many'"]),
        (["train", "--train.batch_size", "0"], ["train.batch_size", "greater than or equal to 1"]),
        (["train", "nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
        (["train", *DIGITS], ["student.model is missing"]),
        (["train", *DIGITS, "--student.model", "cifar/resnet21"], ["resnet21", "Did you mean"]),
        (["train", *DIGITS, "--student.model", "tim/resnet18"], ["tim", "timm"]),
        (["train", *DIGITS, "--student.model", "timm/resnet118"], ["resnet118", "Did you mean"]),
        (["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--train.device", "cuda:7"], ["cuda:7"]),
        (["train", "--data", "phtos", "--student.model", "cifar/resnet20"], ["phtos", "does not exist"]),
        (["train", "--data.source", "cifr", "--student.model", "cifar/resnet20"], ["cifr", "Did you mean 'cifar'"]),
        (["distill", *DIGITS, "--student.model", "digits/cnn_4_8"], ["needs a teacher"]),
        (
            ["distill", *DIGITS, "--student.model", "digits/cnn_4_8", "--teacher.model", "digits/cnn_8_16"],
            ["no weights"],
        ),
        (["predict", "--student", "nowhere"], ["predict needs pictures"]),
        (["predict", "a.jpg", "--student", "nowhere"], ["nowhere"]),
        (["list", "teachers"], ["teachers", "objectives, scores, sources"]),
        (["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--resume"], ["--resume needs --out"]),
        (["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--resume", "--out", "no"], ["no run to resume"]),
        (["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--out", "~nobody-of-this-name/x"], ["has none here"]),
        (["record", *DIGITS, "--out", "~nobody-of-this-name/x"], ["has none here"]),
        (["demo", "--seeds", "1"], ["at least 2"]),
        (["train", *DIGITS, "--data.views", "{crop: [none}"], ["'{crop: [none}' is no mapping", "'{crop: none}'"]),
        (["fit", "run.yaml", "--runtime", "onnx"], ["  budget: it is missing."]),
        (
            ["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--data.scenes.rotate", "3"],
            ["data.scenes.rotate is for scenes, and this is classification. Here it is data.views.rotate."],
        ),
        ([*SCENES, "--data.views.flip", "false"], ["data.views.flip is for photos", "data.scenes.flip"]),
        ([*SCENES, "--data.views.mixup", "1"], ["data.views.mixup is for photos without masks"]),
    ],
)
def test_a_mistake_is_named_with_exit_code_2(run: Run, arguments: Sequence[str], parts: Sequence[str]) -> None:
    refused(run(*arguments), *parts)


def test_an_unknown_objective_section_or_argument_in_the_run_file(run: Run, teacher: Path, tmp_path: Path) -> None:
    head = f"data: {{source: digits}}\nstudent: {{model: digits/cnn_4_8}}\nteacher: {{checkpoint: {teacher}}}\n"
    for text, part in (
        ("objective: {balence: {weight: 1}}", "Did you mean 'balance'"),
        ("objective: {balance: {reverse_wieght: 1}}", "Did you mean 'reverse_weight'"),
        ("objektive: {}", "Did you mean 'objective'"),
        ("train: {optimizer: {lr: 1}}", "train.optimizer.lr"),
    ):
        (tmp_path / "run.yaml").write_text(head + text)
        refused(run("distill", "run.yaml"), part)
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--student.model", "@x", "--data.source", "digits"], ["'@x'"]),
        (["train", "--student.model", "digits/cnn_4_8", "--data.source", "{a"], ["'{a'"]),
        (["train", "--student.model", "digits/cnn_4_8", "--data.source", "no"], ["'no'"]),
        (["train", *DIGITS, "--student.model", "digits/cnn_4_8", "--out", 300 * "a"], ["aaa", "too long"]),
        (["train", 300 * "a"], ["aaa", "too long"]),
        (["train", "--data.views.flip", "maybe"], ["'maybe' follows --data.views.flip", "--data.views.no-flip"]),
        (["distill", "--objective.mlkd.temperatures", "1", "2"], ["--objective.mlkd.temperatures 1", "[1, 2]"]),
        (["gauge", "nowhere", "--teacher.std", "0", "1", "1"], ["teacher.std: must be positive"]),
        (
            ["distill", "--objective.balance.weight", "x"],
            ["1 mistake", "balance.weight: input should be a valid number"],
        ),
    ],
)
def test_text_that_looks_like_something_else_is_refused_as_what_it_is(
    run: Run, arguments: Sequence[str], parts: Sequence[str]
) -> None:
    refused(run(*arguments), *parts)


def test_text_under_free_keys_means_what_it_does_in_a_run_file() -> None:
    def options(*arguments: str) -> dict[str, Any]:
        _, bound, _ = app.app.parse_args(["train", *arguments], exit_on_error=False, print_error=False)
        return flags.values_of(bound.arguments["options"])

    assert options("--data.options.a", "no", "--data.options.b", "@x", "--data.source", "no") == {
        "data": {"options": {"a": False, "b": "@x"}, "source": "no"}
    }
    assert options("--student.arguments.a", "[1, 2]", "--teacher.arguments.b.c", "3") == {
        "student": {"arguments": {"a": [1, 2]}},
        "teacher": {"arguments": {"b": {"c": 3}}},
    }
    assert options("--objective.a.x", "2", "--objective.a.objective", "no") == {
        "objective": {"a": {"x": 2, "objective": "no"}}
    }
    assert options("--train.schedule.milestones", "0.5", "0.8") == {"train": {"schedule": {"milestones": (0.5, 0.8)}}}


def test_null_and_mappings_mean_what_they_do_in_a_run_file(run: Run, tmp_path: Path) -> None:
    arguments = [*DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--out", "run", "--data.views"]
    assert run("train", *arguments, "{crop: none, mixup: 0.2}", "--train.clip_gradient", "null")[0] == 0
    import yaml

    resolved = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert resolved["train"]["clip_gradient"] is None
    assert (resolved["data"]["views"]["crop"], resolved["data"]["views"]["mixup"]) == ("none", 0.2)
    refused(run("train", "--train.epochs", "null"), "train.epochs", "'null'")


def test_switches_take_true_and_false(run: Run, tmp_path: Path) -> None:
    arguments = [*DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--student.pretrained", "false", "--out", "run"]
    flags = ["--data.views.flip", "false", "--train.drop_last", "true", "--objective.cross_entropy.label_smoothing"]
    assert run("train", *arguments, *flags, "1e-1")[0] == 0
    import yaml

    resolved = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert resolved["data"]["views"]["flip"] is resolved["student"]["pretrained"] is False
    assert resolved["train"]["drop_last"] is True
    # Without a run file, flags of the objective are laid over what train minimizes: cross-entropy alone.
    assert list(resolved["objective"]) == ["cross_entropy"]
    assert resolved["teacher"] is None


def test_a_broken_run_file_in_a_resumed_folder_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.yaml").write_text("train: {epochs: many}\n")
    refused(run("train", "--out", "broken", "--resume"), "run file broken/run.yaml has 1 mistake")


@pytest.mark.parametrize("text", ["x = 1 / 0", "def ("])
def test_an_objective_file_that_cannot_be_imported_is_named(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    flags = [*DIGITS, "--student.model", "digits/cnn_4_8", "--objective.mine.objective", "mine.py:Mine"]
    refused(run("train", *flags), "mine.py cannot be imported", "Error: ")


def test_folders_that_may_not_be_read_or_written_are_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user, root for instance, may read and write all folders")
    refused(run("evaluate", "closed"), "closed", "Permission denied")
    refused(run("train", "--data", "closed", "--student.model", "cifar/resnet8"), "closed", "Permission denied")
    arguments = ["train", *DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--out", "closed/run"]
    refused(run(*arguments), "closed", "Permission denied")


def test_names_with_square_brackets_are_printed_as_they_are(run: Run) -> None:
    arguments = [*DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--out", "x/[/b] :smile:"]
    code, out, _ = run("train", *arguments)
    assert code == 0
    assert "Student: x/[/b] :smile:/student" in out


@pytest.mark.parametrize(
    ("verb", "descriptions"),
    [
        ("demo", ["students of each kind", "replace an older demo"]),
        ("train", ["YAML run file", "go on with the run", "passes over the training data"]),
        ("distill", ["YAML run file", "no progress", "laid over the run file's terms", "weights: .safetensors"]),
        ("evaluate", ["student folder, or a run's folder", "data folder or run file", "images at once"]),
        ("gauge", ["of both softmaxes", "file to write the gauge to", "weights: .safetensors"]),
        ("predict", ["picture files", "print the answers as JSON"]),
        ("list", ["objectives, models, sources or scores"]),
    ],
)
def test_help_describes_what_can_be_given(
    run: Run, verb: str, descriptions: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run(verb, "--help")
    assert [text for text in descriptions if text not in out] == []


def test_an_existing_run_is_not_overwritten_unless_asked(run: Run) -> None:
    arguments = ["train", *DIGITS, *FAST, "--student.model", "digits/cnn_4_8", "--out", "run"]
    assert run(*arguments)[0] == 0
    wrong = [argument.replace("cnn_4_8", "cnn_4_x") for argument in arguments]
    weights = Path("run/student/model.safetensors").read_bytes()
    refused(run(*arguments, "--seed", "1"), "--resume", "--overwrite")
    refused(run(*wrong, "--overwrite"), "cnn_4_x")
    assert Path("run/student/model.safetensors").read_bytes() == weights
    assert run(*arguments, "--seed", "1", "--overwrite")[0] == 0
    assert Path("run/student/model.safetensors").read_bytes() != weights


def test_class_counts_that_differ(run: Run, image_folder: Path, teacher: Path) -> None:
    arguments = ["--data", image_folder, "--student.model", "digits/cnn_4_8", "--teacher.checkpoint", teacher]
    refused(run("distill", *arguments, "--data.size", "8"), "10", "3")


def test_a_checkpoint_of_another_architecture(run: Run, tmp_path: Path, teacher: Path) -> None:
    checkpoint = teacher / "student" / "model.safetensors"
    arguments = [*DIGITS, "--student.model", "digits/cnn_4_8", "--teacher.checkpoint", checkpoint]
    refused(run("distill", *arguments, "--teacher.model", "cifar/resnet8"), "resnet8")
    save_file({"nothing": torch.zeros(1)}, tmp_path / "other.safetensors")
    arguments[-1] = tmp_path / "other.safetensors"
    refused(run("distill", *arguments, "--teacher.model", "digits/cnn_8_16"), "nothing")
    (tmp_path / "noise.safetensors").write_bytes(os.urandom(1000))
    arguments[-1] = tmp_path / "noise.safetensors"
    refused(run("distill", *arguments, "--teacher.model", "digits/cnn_8_16"), "noise.safetensors")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harmed",))


def test_pickles_that_try_to_run_code_do_not(run: Run, small_cifar100: Path, tmp_path: Path) -> None:
    (small_cifar100 / "cifar-100-python" / "train").write_bytes(pickle.dumps({b"data": Harmful()}))
    refused(run("train", "--data", small_cifar100, "--student.model", "cifar/resnet8"), "train")
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    arguments = [*DIGITS, "--student.model", "digits/cnn_4_8", "--teacher.model", "digits/cnn_8_16"]
    refused(run("distill", *arguments, "--teacher.checkpoint", "harmful.pt"), "harmful.pt")
    assert not Path("harmed").exists()


def test_image_folders_with_one_class_or_an_empty_one(run: Run, image_folder: Path) -> None:
    arguments = ["train", "--data", image_folder, "--student.model", "cifar/resnet8"]
    (image_folder / "train" / "hexagon").mkdir()
    refused(run(*arguments), "hexagon")
    for folder in image_folder.glob("*/*"):
        if folder.name != "circle":
            shutil.rmtree(folder)
    refused(run(*arguments), "circle")


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_truncated_image_is_named_or_left_out_and_counted(run: Run, image_folder: Path, policy: str) -> None:
    file = image_folder / "train" / "square" / "02.jpg"
    file.write_bytes(file.read_bytes()[:300])
    arguments = ["train", "--data", image_folder, "--student.model", "digits/cnn_4_8", "--out", "run", *FAST]
    arguments += ["--data.size", "16", "--data.on_corrupt", policy, "--data.workers", "0", "--train.batch_size", "8"]
    if policy == "stop":
        refused(run(*arguments), "02.jpg")
        return
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["corrupt"] == 1
    assert "02.jpg" in json.loads(Path("run/summary.json").read_text())["corrupt_files"][0]


def test_masks_and_networks_for_masks_are_no_classification(run: Run) -> None:
    refused(run("train", "--data.source", "digit_scenes", "--student.model", "cifar/resnet8"), "masks")
    refused(run("train", *DIGITS, "--student.model", "smp/fpn:resnet18"), "segmentation")


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        ("--train.comet", "--train.comet. train.tensorboard, train.wandb and train.mlflow write curves"),
        ("--train.early_stopping=3", "--train.early_stopping. train.patience stops a run that gets no better"),
        ("--train.early-stopping", "train.patience stops"),
        ("--wandb", "--wandb. train.tensorboard"),
        ("--train.lr", "train.optimizer.learning_rate says it"),
        ("--objective.focal_loss.weight", "cross_entropy's class_weight"),
        ("--train.epochz", "--train.epochz. Did you mean --train.epochs?"),
        ("--data.sizes", "Did you mean --data.size?"),
        ("--data.views.sizes", "Did you mean --data.views.size?"),
        ("--train.lerning_rate", "Did you mean --train.optimizer.learning_rate?"),
    ],
)
def test_a_flag_of_elsewhere_is_answered_with_what_does_the_job(run: Run, flag: str, answer: str) -> None:
    code, _, err = run("distill", *DIGITS, "--student.model", "digits/cnn_4_8", "--teacher.checkpoint", "x", flag, "3")
    assert code == 2
    assert answer in err
    assert err.count("\n") == 1
