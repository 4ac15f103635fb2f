"""What is said where something is asked for that cannot be: what was given, what was expected, the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from counterpoise import config, store
from counterpoise.data import sources
from counterpoise.data.slide_file import At
from counterpoise.errors import ConfigError, CounterpoiseError, DataError, ModelError, StoreError
from counterpoise.models.prompts import reading
from counterpoise.studies.fitting import budget

GOLDEN = Path(__file__).parent / "golden"
Run = Callable[..., tuple[int, str, str]]
DIGITS = {"data": {"source": "digits"}, "student": {"model": "digits/cnn_4_8"}}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["measure"], "measure needs something to measure: a student folder, a run, an export or an ONNX file"),
        (["report"], "report needs a run: counterpoise report runs/mine"),
        (["report", GOLDEN / "onnx"], "tells of exports alone: give the run that they come from, too"),
        (["predict", "x.png"], "predict needs a student: give --student runs/mine"),
        (["measure", "x", "--from", "f.txt"], "measure takes things to measure, or --from FILE"),
        (["verify", GOLDEN / "pack", "--images", "3"], "is a pack: it is compared with nothing but its own checksums"),
        (["distill", "run.yaml"], "distill needs a teacher: give teacher.model and teacher.checkpoint, or use train"),
        (["train", "nobody.yaml"], "student.model is missing: the network to train, such as"),
        (
            ["record", "nobody.yaml", "--teacher.model", "a", "--out", "b"],
            "of that input size may learn from the store",
        ),
        (["train", "run.yaml", "--train.device", "gpu"], "'gpu' is no device; expected auto, cpu, cuda, cuda:1 or mps"),
        (["probe", "run.yaml", "--out", "probed"], "teacher.model is missing: the network to probe, such as"),
        (["probe", "run.yaml", "--out", "probed", "--train.epochs", "3"], "--train.epochs says nothing of a probe"),
        (["verify", GOLDEN / "onnx", "--images", "3"], "images is of the comparison with the student: give it"),
        (["verify", GOLDEN / "run", "--student", "x"], "is no export, which alone is compared with a student"),
        (["measure", GOLDEN / "onnx", "--bundle", "b", "--seconds", "3"], "--seconds is of what is measured here"),
        (["measure", GOLDEN / "onnx", "--bundle", "b", "--out", "m.json"], "--out is for a result, and --bundle"),
        (
            ["measure", "--from", "f.txt", "--threads", "3"],
            "--threads is of what is measured here: leave it out with --from",
        ),
        (["try", GOLDEN / "run", "--port", "9000"], "--port is of --serve"),
        (
            ["record", "run.yaml", "--views", "plain", "--epochs", "3", "--out", "s", "--teacher.model", "x"],
            "epochs is of views",
        ),
        (["report", "run.yaml", "--no-predictions", "--images", "3"], "--images is of asking student and teacher"),
        (["predict", "x.png", "--student", GOLDEN / "run", "--first", "3"], "first is of data: leave it out"),
        (
            ["predict", "--data", "run.yaml", "--student", GOLDEN / "run", "--max_megapixels", "3"],
            "max_megapixels is of pictures by path: of a run file's data it is data.max_megapixels",
        ),
        (["predict", "x.png", "--student", GOLDEN / "run", "--axis", "3"], "input should be 0, 1 or 2, got 3"),
        (
            [
                "fit",
                "run.yaml",
                "--budget",
                "size<=1MB",
                "--runtime",
                "onnx",
                "--students",
                "digits/cnn_4_8",
                "--within",
                "3",
                "--out",
                "f",
            ],
            "within is of 8 bits, and no candidate is of int8",
        ),
        (["train", "0.yaml"], "stands on more than 16 others, one on the other"),
    ],
)
def test_a_command_says_what_it_lacks(command: list[str | Path], said: str, run: Run) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(DIGITS))
    Path("nobody.yaml").write_text(yaml.safe_dump({"data": {"source": "digits"}}))
    for number in range(20):
        Path(f"{number}.yaml").write_text(yaml.safe_dump({"base": f"{number + 1}.yaml"}))
    code, _, error = run(*command)
    assert code == 2
    assert said in " ".join(error.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latency<=5ms,latency<=6ms", "latency has two limits"),
        ("latency<=1.2.3ms", "'1.2.3' is no number"),
        ("speed<=5", "Quantity 'speed' is unknown"),
    ],
)
def test_a_budget_that_is_none_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        budget.parse(text)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (At(), "give level .0 is the largest., or mpp, microns per pixel"),
        (At(-1), "level is a number from 0 on, got -1"),
        (At(mpp=float("nan")), "mpp is microns per pixel, above 0, got nan"),
    ],
)
def test_a_level_that_is_none_is_told(at: At, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        at.check()


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        ({"source": "digits", "options": {"train_size": 10**6}}, ConfigError, "train_size must be "),
        ({"source": "nifti", "path": ".", "options": {"axis": 3}}, ConfigError, "axis is 0, 1 or 2, got 3"),
        ({"source": "cifar", "path": "."}, DataError, "is not complete: test missing"),
        ({"source": "table", "path": "empty.csv"}, DataError, "is empty: expected a line of column names"),
        (
            {"source": "coco", "path": ".", "options": {"val": "x.json"}},
            ConfigError,
            "val is given, and no data.options",
        ),
    ],
)
def test_data_that_cannot_be_say_what_was_expected(
    data: dict[str, object], kind: type[CounterpoiseError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("")
    Path("cifar-100-python").mkdir()
    for name in ("train", "meta"):
        Path("cifar-100-python", name).write_bytes(b"")
    with pytest.raises(kind, match=said):
        sources.load(config.Data.model_validate(data))


def test_prompts_must_tell_classes_apart() -> None:
    with pytest.raises(ModelError, match="two classes have one name once they are text"):
        reading.parse({1: "a photo of one", "1": "a photo of another"}, "prompts.yaml")


def test_nothing_to_merge_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Nothing to merge: name the folders that were recorded to"):
        store.merge(out=tmp_path / "store")
