from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models import imagenet
from counterpoise.models.classmap import map_teacher
from counterpoise.models.network import VisionModel


class Flat(nn.Module):
    """Logits that are the first pixels of the image."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.count]


def teacher(classes: list[str] | tuple[str, ...] | int, name: str = "own") -> VisionModel:
    count = classes if isinstance(classes, int) else len(classes)
    names = None if isinstance(classes, int) else classes
    return VisionModel(Flat(count), name=name, num_classes=count, classes=names, mean=(0.0,) * 3, std=(1.0,) * 3).eval()


def answers(model: VisionModel) -> Tensor:
    torch.manual_seed(0)
    return model(torch.rand(2, 3, 32, 32))


def mapping(tmp_path: Path, text: str) -> Path:
    (tmp_path / "classes.yaml").write_text(text)
    return tmp_path / "classes.yaml"


def test_classes_are_found_by_name_in_another_order() -> None:
    known = teacher(["cat", "dog", "Red_Fox", "owl"])
    mapped = map_teacher(known, ["red fox", "cat"])
    assert mapped.classes == ("red fox", "cat")
    assert mapped.num_classes == 2
    assert torch.equal(answers(mapped), answers(known)[:, [2, 0]])
    assert known.classes == ("cat", "dog", "Red_Fox", "owl")


def test_same_classes_in_the_same_order_are_left_alone() -> None:
    known = teacher(["cat", "dog"])
    mapped = map_teacher(known, ["cat", "dog"])
    assert mapped.selection is None
    assert torch.equal(answers(mapped), answers(known))


def test_unknown_names_of_the_same_number_are_taken_in_order() -> None:
    mapped = map_teacher(teacher(2), ["cat", "dog"])
    assert mapped.classes == ("cat", "dog")
    assert mapped.selection is None


def test_several_classes_add_their_probabilities_up(tmp_path: Path) -> None:
    known = teacher(["tabby", "siamese", "beagle", "car"])
    path = mapping(tmp_path, "cat: [tabby, 1]\ndog: beagle\n")
    mapped = map_teacher(known, ["dog", "cat"], path)
    everything = answers(known).softmax(1)
    chosen = torch.stack([everything[:, 2], everything[:, 0] + everything[:, 1]], 1)
    torch.testing.assert_close(answers(mapped).softmax(1), chosen / chosen.sum(1, keepdim=True))


def test_joined_logits_stay_finite_in_half_precision(tmp_path: Path) -> None:
    mapped = map_teacher(teacher(3), ["a", "b"], mapping(tmp_path, "a: [0, 1]\nb: 2\n"))
    assert mapped.selection is not None
    extreme = torch.tensor([[60000.0, 60000.0, -60000.0]], dtype=torch.float16)
    logits = mapped.selection(extreme)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.tensor([[60000.0 + 0.6931, -60000.0]]))


def test_dense_logits_are_mapped_at_every_position(tmp_path: Path) -> None:
    mapped = map_teacher(teacher(3), ["a", "b"], mapping(tmp_path, "a: [0, 1]\nb: 2\n"))
    assert mapped.selection is not None
    dense = torch.randn(2, 3, 4, 5)
    by_position = mapped.selection(dense.permute(0, 2, 3, 1).reshape(-1, 3)).reshape(2, 4, 5, 2).permute(0, 3, 1, 2)
    torch.testing.assert_close(mapped.selection(dense), by_position)


def test_mapping_can_be_mapped_again(tmp_path: Path) -> None:
    known = teacher(["a", "b", "c"])
    twice = map_teacher(map_teacher(known, ["c", "a"]), ["a", "c"])
    assert torch.equal(answers(twice), answers(known)[:, [0, 2]])


def test_mapping_file_gives_classes_where_the_data_has_none(tmp_path: Path) -> None:
    mapped = map_teacher(teacher(3), (), mapping(tmp_path, "b: 2\na: [0, 1]\n"))
    assert mapped.classes == ("b", "a")
    assert map_teacher(mapped, ()) is mapped


def test_numbers_that_differ_without_names_say_what_to_do() -> None:
    with pytest.raises(
        ModelError, match=r"own has 5 classes, of unknown names, and the student 2\. Give teacher\.classes"
    ):
        map_teacher(teacher(5), ["cat", "dog"])


def test_class_that_is_not_found_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="1 of the student's 2 classes are not found among the 3") as caught:
        map_teacher(teacher(["tabby", "beagle", "car"]), ["beagel", "car"])
    assert "'beagel' is unknown. Did you mean 'beagle'?" in str(caught.value)
    assert "Give teacher.classes" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat: 0\n", "lacks 'dog'"),
        ("cat: 0\ndgo: 1\n", r"lacks 'dog'\. Did you mean 'dgo'\?"),
        ("cat: 0\ndog: 1\nowl: 2\n", "names 'owl', which the data has not"),
        ("cat: 0\ndog: 3\n", "dog: index 3 is out of range, the teacher has 0 to 2"),
        ("cat: 0\ndog: -1\n", "dog: index -1 is out of range"),
        ("cat: 0\ndog: beagel\n", "dog: 'beagel' is unknown. Did you mean 'beagle'"),
        ("cat: 0\ndog: []\n", "dog: the list is empty"),
        ("cat: [0, tabby]\ndog: 1\n", "cat: a class of the teacher is named twice"),
        ("cat: 0.5\ndog: 1\n", "expected an index, a name or a list of them, got 0.5"),
        ("cat: true\ndog: 1\n", "expected an index, a name or a list of them, got True"),
        ("- cat\n", "must hold {class"),
        ("cat: [0\n", "is not YAML"),
    ],
)
def test_mistakes_in_the_mapping_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        map_teacher(teacher(["tabby", "beagle", "car"]), ["cat", "dog"], mapping(tmp_path, text))


def test_missing_mapping_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.yaml does not exist"):
        map_teacher(teacher(2), ["cat", "dog"], tmp_path / "none.yaml")


def test_name_in_the_file_of_a_teacher_without_names_must_be_an_index(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'tabby' must be an index"):
        map_teacher(teacher(3), ["cat"], mapping(tmp_path, "cat: tabby\n"))


def test_imagenet_classes_are_found_by_synonym_and_wordnet_id() -> None:
    names = imagenet.classes(1000)
    assert names is not None
    mapped = map_teacher(teacher(names, "timm/any"), ["n01440764", "Great white shark", "tiger_shark"])
    assert mapped.selection is not None
    assert mapped.selection.index.flatten().tolist() == [0, 2, 3]
    # a file of 1000 classes that says nothing is taken for ImageNet's
    assert map_teacher(teacher(1000, "torchvision/any"), ["tench"]).selection.index.tolist() == [[0]]


def test_ambiguous_name_asks_for_the_index() -> None:
    with pytest.raises(ModelError, match="'crane' is ambiguous: the teacher's classes 134, 517"):
        map_teacher(teacher(1000, "timm/any"), ["crane", "tench"])


def test_thousand_classes_of_ones_own_are_taken_in_order() -> None:
    own = [f"part {number}" for number in range(1000)]
    mapped = map_teacher(teacher(1000, "timm/any"), own)
    assert mapped.selection is None
    assert mapped.classes == tuple(own)
