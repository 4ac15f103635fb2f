"""Questions asked of masks: what each value says of each, what is counted, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.class_weights import with_class_weights
from counterpoise.data.sources import questions
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits, Subset
from counterpoise.data.sources.masks_census import counted, problems_of
from counterpoise.data.sources.memory import concatenate, in_memory
from counterpoise.errors import ConfigError, DataError

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("ground", "rim", "cup")
ASKED = {"disc": ["rim", "cup"], "cup": ["cup"]}
MASK = torch.tensor([[0, 1, 2], [255, 2, 1]], dtype=torch.uint8)


def scenes(count: int = 4) -> ArraySet:
    return ArraySet.of_scenes(torch.zeros(count, 3, 2, 3, dtype=torch.uint8), MASK.repeat(count, 1, 1), CLASSES)


def test_a_pixel_is_a_yes_of_each_question_that_has_its_class_and_void_is_unknown() -> None:
    images = questions.asked(scenes(), ASKED)
    assert images.classes == ("disc", "cup")
    assert images.questions is not None
    found = questions.answers_of(images.questions, images.read_mask(0))
    assert found.tolist() == [[[0, 1, 1], [-1, 1, 1]], [[0, 0, 1], [-1, 1, 0]]]
    assert questions.answers_of(images.questions, torch.stack([MASK, MASK])).shape == (2, 2, 2, 3)
    assert [each.tolist() for each in questions.counts(images)] == [[16, 8], [4, 12]]


def test_parts_and_what_lies_in_memory_keep_the_questions_and_other_questions_are_other_data() -> None:
    images = questions.asked(scenes(), ASKED)
    parts = [images.subset(torch.tensor([1, 2])), sources.split(images, 2, seed=0).train, in_memory(images, 1e6)]
    parts += [Subset(images, torch.tensor([0])), concatenate(images, images)]
    for part in parts:
        assert part.classes == ("disc", "cup")
        assert torch.equal(part.questions, images.questions)  # type: ignore[arg-type]
    plain = scenes().fingerprint()
    others = [questions.asked(scenes(), each).fingerprint() for each in (ASKED, {**ASKED, "disc": ["rim"]})]
    assert len({plain, *others}) == 3


def test_questions_in_another_order_are_answered_as_before() -> None:
    images = questions.asked(scenes(), ASKED)
    other = images.in_order(("cup", "disc"))
    assert images.questions is not None
    assert other.questions is not None
    mine, theirs = (questions.answers_of(each.questions, MASK) for each in (images, other))  # type: ignore[arg-type]
    assert torch.equal(mine.flip(0), theirs)
    with pytest.raises(DataError):
        images.in_order(("cup", "rim"))


def test_rare_questions_weigh_as_their_no_to_their_yes() -> None:
    images = questions.asked(scenes(), ASKED)
    terms = {"binary_cross_entropy": config.Term(weight=1.0, pos_weight="frequency")}  # type: ignore[call-arg]
    assert with_class_weights(terms, images)["binary_cross_entropy"].arguments["pos_weight"] == [0.25, 1.5]


def test_shares_of_the_pixels_are_told_by_question_and_those_without_a_yes_are_named() -> None:
    images = questions.asked(scenes(), ASKED)
    said = counted(images).text()
    assert said == "pixels, each a question of its own: disc 67%, cup 33%, void 17%"
    only = ArraySet.of_scenes(torch.zeros(1, 3, 2, 3, dtype=torch.uint8), MASK.clamp(max=1)[None], CLASSES)
    (problem,) = problems_of(counted(questions.asked(only, ASKED)), "val")
    assert problem.severity == "warning"
    assert "yes of the question 'cup'" in problem.what
    assert "stays at 0.5" in problem.what
    (problem,) = problems_of(counted(questions.asked(only, {"cup": ["cup"]})), "val")
    assert problem.severity == "error"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"disc": ["rims"]}, r"data.questions.disc: 'rims' is no class of the masks. Did you mean 'rim'\?"),
        ({"all": [*CLASSES]}, "data.questions.all has all classes of the masks: its answer is always yes"),
    ],
)
def test_what_cannot_be_asked_is_said(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        questions.asked(scenes(), given)


def test_questions_are_asked_once_and_of_masks() -> None:
    with pytest.raises(ConfigError, match="these masks answer questions already"):
        questions.asked(questions.asked(scenes(), ASKED), ASKED)
    with pytest.raises(ConfigError, match="are asked of masks"):
        sources.load(config.Data(source="digits", questions={"one": ["1"]}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cup", {"cup": ["cup"]}),
        (["cup", 7], {"cup": ["cup"], "7": ["7"]}),
        ({"disc": ["rim", 2], "cup": "cup"}, {"disc": ["rim", "2"], "cup": ["cup"]}),
    ],
)
def test_a_run_file_may_name_classes_alone(given: Any, expected: dict[str, list[str]]) -> None:
    assert config.resolve({"data": {"questions": given}}).data.questions == expected
    for wrong in ({}, {"disc": []}, 5.5):
        with pytest.raises(ConfigError, match=r"data\.questions"):
            config.resolve({"data": {"questions": wrong}})


def test_the_embedded_scenes_are_divided_and_asked() -> None:
    data = config.Data(
        source="digit_scenes", options={"train_size": 6, "val_size": 2}, questions={"odd": ["1", "3", "5", "7", "9"]}
    )
    splits: Splits = sources.load(data)
    for part in splits:
        assert part.classes == ("odd",)
        assert part.questions is not None


def test_a_flag_takes_a_class_or_a_list_of_them_and_is_given_once(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "scenes.yaml"
    file.write_text(
        "data: {source: digit_scenes, options: {train_size: 4, val_size: 2}}\ntask: multilabel_segmentation\n"
    )
    several = ("--data.questions.odd", "[1, 3, 5, 7, 9]")
    code, out, _ = run("check", file, *several, "--data.questions.one", "1", "--json")
    assert (code, json.loads(out)["found"]["classes"]) == (0, ["odd", "one"])
    code, _, error = run("check", file, *several, "--data.questions.odd", "1")
    assert (code, "specified multiple times" in error) == (2, True)
