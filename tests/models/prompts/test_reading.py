from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counterpoise.errors import ModelError
from counterpoise.models.prompts import reading


@pytest.mark.parametrize(
    ("values", "classes", "first", "last"),
    [
        (["cat", "a_dog"], ("cat", "a_dog"), "a photo of a cat.", "a picture in which there is a a dog."),
        ({"cat": None, 7: None}, ("cat", "7"), "a photo of a cat.", "a picture in which there is a 7."),
        ({"b": "a cat  asleep", "a": ["one {}", "two"]}, ("b", "a"), "a cat asleep", "two"),
        ({"n1": {"name": ["cat", "puss"]}, "n2": "a dog"}, ("n1", "n2"), "a photo of a cat.", "a dog"),
        ({"templates": "{}!", "classes": ["cat", "dog"]}, ("cat", "dog"), "cat!", "dog!"),
        ({"templates": ["{}?"], "classes": {"cat": "so", "dog": None}}, ("cat", "dog"), "so", "dog?"),
    ],
)  # fmt: skip
def test_a_file_is_names_within_templates_or_sentences_as_they_are(
    values: Any, classes: tuple[str, ...], first: str, last: str
) -> None:
    prompts = reading.parse(values, "here")
    assert prompts.classes == classes
    assert (prompts.flat[0], prompts.flat[-1]) == (first, last)
    assert sum(prompts.counts) == len(prompts.flat)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{cat: a photo, dog: a photo}", "'cat' and 'dog' have one prompt, 'a photo'"),
        ("[cat, dog, cat]", "class 'cat' is named twice"),
        ("{cat: a, 7: b, '7': c}", "the key '7' comes twice"),
        ("[cat, no]", "got False; put it between quotes"),
        ("[cat]", "names 1 classes; a classifier needs at least 2"),
        ("{cat: [], dog: x}", "cat: the list is empty"),
        ("{cat: 3, dog: x}", "cat is 3: expected nothing, a sentence"),
        ("{cat: [x, x], dog: y}", "'x' is said twice"),
        ("{cat: {names: x}, dog: y}", "cat is a dict: expected nothing, a sentence"),
        ("{templates: [a photo], classes: [cat, dog]}", "has no {}, where the name of a class goes"),
        ("a photo of a cat", "holds 'a photo of a cat': expected a list of class names"),
        ("", "holds nothing: expected a list of class names"),
        ("{cat: , a: {cosine: 0.2}, b: {cosine: 0.1}}", "'a' and 'b' have no prompt"),
        ("{cat: , a: {cosine: 2}}", "a: cosine must be a number between -1 and 1"),
        ("[cat, dog", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(ModelError) as raised:
        reading.read(file)
    assert told in str(raised.value)
    assert str(raised.value).startswith(f"teacher.prompts: {file}")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.yaml does not exist"):
        reading.read(tmp_path / "none.yaml")


def test_prompts_for_other_classes_than_those_of_the_data_are_listed() -> None:
    prompts = reading.parse(["cat", "polar bear", "dogs"], "here")
    reading.require_classes(prompts, ["Polar_Bear", "cat", "dogs"], Path("p"))
    with pytest.raises(ModelError) as raised:
        reading.require_classes(prompts, ["cat", "dog", "fox"], Path("p"))
    assert "in the data alone: dog, fox" in str(raised.value)
    assert "in the prompts alone: polar bear, dogs" in str(raised.value)
    assert "Did you mean 'dogs'" in str(raised.value)
