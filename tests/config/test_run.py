"""The run file: every mistake named, with the nearest right choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise import config
from counterpoise.commands import flags
from counterpoise.commands.app import app
from counterpoise.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, "trian: unknown section. Did you mean 'train'"),
        ({"train": {"epoch": 3}}, "train.epoch: unknown key. Did you mean 'epochs'"),
        ({"data": {"views": {"flp": True}}}, "data.views.flp: unknown key. Did you mean 'flip'"),
        ({"teacher": {"modle": "timm/x"}}, "Did you mean 'model'"),
        ({"train": {"epochs": "many"}}, "train.epochs: input should be a valid integer"),
        ({"train": {"epochs": 0}}, "train.epochs: input should be greater than or equal to 1, got 0"),
        ({"train": {"optimizer": {"name": "adam"}}}, "Did you mean 'adamw'"),
        ({"train": {"optimizer": {"learning_rate": float("nan")}}}, "train.optimizer.learning_rate"),
        ({"data": {"val_fraction": 1.5}}, "data.val_fraction"),
        ({"data": {"views": {"scale": [0.9, 0.1]}}}, "scale must rise"),
        ({"data": {"scenes": {"scale": [0.0, 1.0]}}}, "scale must be positive"),
        ({"data": {"scenes": {"jitter": 1.5}}}, "jitter: input should be less than or equal to 1, got 1.5"),
        ({"data": {"scenes": {"size": [0, 8]}}}, "data.scenes.size.0: input should be greater than or equal to 1"),
        ({"student": {"std": [0.2, 0.0, 0.2]}}, "must be positive"),
        ({"objective": {}}, "at least one term"),
        ({"objective": {"balance": {"weight": {"shape": "linear", "start": 1.0}}}}, "a linear schedule needs 'end'"),
        ({"objective": {"balance": {"weight": [1]}}}, "weight: input should be a valid number, or a mapping of keys"),
        ({"objective": {"balance": {"weight": {"start": 1, "ent": 2}}}}, "weight.ent: unknown key. Did you mean 'end'"),
        ({"objective": {"a.b": {}}}, "must not be empty or hold a dot, got 'a.b'"),
        ({"objective": {"": {}}}, "must not be empty or hold a dot, got ''"),
        ({"train": 3}, "train: input should be a mapping of keys such as 'epochs', got 3"),
        ({"train": {"channels_last": "x"}}, "train.channels_last: input should be a valid boolean"),
        ({"data": {"workers": 300}}, "data.workers: input should be less than or equal to 256, or 'auto', got 300"),
        ({"seed": -1}, "seed"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.resolve(values)
    assert message in str(error.value)


@pytest.mark.parametrize("weight", [[1], {"start": 1}, "x"])
def test_a_mistake_in_a_value_of_several_kinds_is_one_mistake_in_plain_words(weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"has 1 mistake:\n  objective\.float\.weight: ") as error:
        config.resolve({"objective": {"float": {"weight": weight}}})
    assert not any(word in str(error.value) for word in ("Schedule", "function", "pydantic", "validation error"))


def test_a_teacher_among_several_may_be_a_path_in_files_and_flags() -> None:
    told = config.resolve({"teachers": ["runs/a", {"checkpoint": "runs/b", "weight": 2}]})
    members = ["--teacher.members", "runs/a", '{"checkpoint": "runs/b", "weight": 2}']
    _, bound, _ = app.parse_args(["distill", *members], exit_on_error=False, print_error=False)
    flagged = config.resolve(flags.values_of(bound.arguments["options"]))
    assert told.teacher == flagged.teacher
    assert [member.checkpoint for member in told.teacher.members] == [Path("runs/a"), Path("runs/b")]  # type: ignore[union-attr]


def test_pretrained_is_a_truth_value_or_a_tag() -> None:
    tags = {"true": True, "No": False, "a1_in1k": "a1_in1k"}
    assert {text: config.Model(pretrained=text).pretrained for text in tags} == tags


def test_a_default_that_waits_for_a_wrong_value_is_no_mistake_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"has 1 mistake:\n  data\.fold: is one of several, .* got '6/5'$"):
        config.resolve({"data": {"fold": "6/5"}})


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match="has 2 mistakes"):
        config.resolve({"train": {"epoch": 1, "batchsize": 2}})


def test_a_dumped_run_reads_back_the_same() -> None:
    run = config.resolve(
        {
            "data": "photos",
            "teacher": {"model": "timm/resnet50", "pretrained": "a1_in1k"},
            "objective": {"balance": {"weight": {"shape": "cosine", "start": 2, "end": 1}, "reverse_temperature": 1.5}},
        }
    )
    assert run.data.path == Path("photos")
    assert config.resolve(yaml.safe_load(config.dump(run))) == run


def test_flags_are_laid_over_the_file_section_by_section() -> None:
    merged = config.merge(
        {"data": "photos", "train": {"epochs": 3, "ema": 0.9}}, {"data": {"workers": 0}, "train": {"epochs": 4}}
    )
    assert merged == {"data": {"path": "photos", "workers": 0}, "train": {"epochs": 4, "ema": 0.9}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "must hold sections"),
        ("a: [", "is not YAML"),
        ("\x00", "is not YAML"),
        ("a: 2024-13-45", "is not YAML"),
        ('base: "a\\0b"', "base in .* has a null character"),
    ],
)
def test_files_that_are_no_run_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.read(path)
    with pytest.raises(ConfigError, match="does not exist"):
        config.read(tmp_path / "other.yaml")


def test_every_verb_is_a_function_of_the_package() -> None:
    import counterpoise
    from counterpoise.commands.app import app

    verbs = {name for name in app if not name.startswith("-")}
    verbs -= {"store", "report"}  # packages of their own: counterpoise.teachers.store, counterpoise.pages.report
    verbs = {"try_" if verb == "try" else verb for verb in verbs}  # a word of Python's
    assert verbs <= set(counterpoise.__all__)
    assert all(callable(getattr(counterpoise, verb)) for verb in verbs)
    assert {row["name"] for row in counterpoise.list("sources")} >= {"digits", "image_folder"}


def test_a_run_file_is_laid_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "alone.yaml").write_text(
        "train: {epochs: 7, batch_size: 8}\nobjective: {cross_entropy: {}}\n"
    )
    (tmp_path / "kd.yaml").write_text(
        "base: common/alone.yaml\ntrain: {epochs: 9}\nobjective: {forward_kl: {weight: 2}}\n"
    )
    run = config.resolve(config.read(tmp_path / "kd.yaml"))
    assert (run.train.epochs, run.train.batch_size) == (9, 8)
    assert list(run.objective) == ["cross_entropy", "forward_kl"]
    (tmp_path / "longer.yaml").write_text("train: {epochs: 11}\n")
    (tmp_path / "both.yaml").write_text("base: [kd.yaml, longer.yaml]\nseed: 3\n")
    both = config.resolve(config.read(tmp_path / "both.yaml"))
    assert (both.seed, both.train.epochs, both.objective) == (3, 11, run.objective)


@pytest.mark.parametrize(
    ("base", "message"),
    [("missing.yaml", "missing.yaml does not exist"), ("b.yaml", "is its own base"), ("[1]", "must be the name")],
)
def test_a_base_that_leads_nowhere_is_refused(tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"base: {base}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=message):
        config.read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("values", "says", "never"),
    [
        ({"train": {"early_stopping": True}}, "train.patience stops a run", "fast"),
        ({"train": {"comet": True}}, "train.tensorboard", "'ema'"),
        ({"train": {"epoch": 3}}, "Did you mean 'epochs'", "tensorboard"),
        ({"data": {"size": 100_000}}, "less than or equal to 16384", "Did you mean"),
        ({"data": {"views": {"padding": 1_000_000}}}, "less than or equal to 1024", "Did you mean"),
        ({"data": {"size": 16_000}}, "64 pictures of 16000 x 16000", "Did you mean"),
        ({"data": {"memory_limit_gb": float("inf")}}, "finite", "Did you mean"),
        ({"data": {"path": "a\0b"}}, "null character in data.path", "Did you mean"),
    ],
)
def test_what_does_not_exist_or_fit_is_answered_with_what_does(values: Any, says: str, never: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.resolve(values)
    assert says in str(refused.value)
    assert never not in str(refused.value)
