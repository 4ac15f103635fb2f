from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models import catalog, digits
from counterpoise.models.families import Request, families
from counterpoise.models.families.base import read_by_library
from counterpoise.models.network import VisionModel
from counterpoise.system import own_code

OWN = """
from torch import nn
from helper import WIDTH

class Net(nn.Module):
    mean, std, input_size = (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 16

    def __init__(self, num_classes, width):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))

def build(num_classes=7, width=WIDTH):
    return Net(num_classes, width)

def crash(num_classes=7):
    raise KeyError("layers")

def number(num_classes=7):
    return num_classes

def narrow(num_classes=7):
    return Net(7, 4)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 4\n")
    (tmp_path / "own.py").write_text(OWN)
    own_code.name(f"{tmp_path}/own.py:build")
    return tmp_path / "own.py"


def checkpoint(tmp_path: Path, model: VisionModel, **metadata: str) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(model.weights(), path, metadata=metadata)
    return path


def same(left: VisionModel, right: VisionModel) -> bool:
    return left.weights_hash() == right.weights_hash()


@pytest.mark.parametrize("name", ["digits/cnn_4_8", "cifar/resnet8", "timm/test_vit", "torchvision/squeezenet1_1"])
def test_every_family_builds_a_model_for_its_own_input(name: str) -> None:
    model = catalog.build(name, num_classes=5).eval()
    assert (model.name, model.num_classes, model.classes) == (name, 5, None)
    assert model.input_size is not None
    images = torch.zeros(2, 3, model.input_size, model.input_size, dtype=torch.uint8)
    outputs = model(images, features=model.stages)
    assert outputs.logits.shape == (2, 5)
    assert len(outputs.features) == len(model.stages) >= 2


@pytest.mark.parametrize(
    ("name", "size", "mean", "crop"),
    [
        ("cifar/resnet8", 32, 0.5071, 1.0),
        ("digits/cnn_4_8", 8, 0.5, 1.0),
        ("timm/mobilenetv3_small_100", 224, 0.485, 0.875),
        ("timm/test_vit", 160, 0.5, 0.95),
        ("torchvision/mobilenet_v3_small", 224, 0.485, 0.875),
    ],
)
def test_normalization_and_input_are_the_networks_own(name: str, size: int, mean: float, crop: float) -> None:
    model = catalog.build(name, num_classes=2)
    assert (model.input_size, model.crop_share) == (size, crop)
    assert model.normalization["mean"][0] == mean


def test_given_normalization_and_input_win() -> None:
    model = catalog.build("cifar/resnet8", num_classes=2, mean=(0.1,) * 3, std=(0.2,) * 3, input_size=48, classes="ab")
    assert model.normalization == {"mean": (0.1,) * 3, "std": (0.2,) * 3}
    assert (model.input_size, model.classes) == (48, ("a", "b"))


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/vit_b_32"])
def test_network_made_for_one_size_is_built_for_the_size_asked_for(name: str) -> None:
    with torch.device("meta"):  # shapes alone: these are large
        model = catalog.build(name, num_classes=3, input_size=96)
        assert model.net(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
        assert catalog.build(name, num_classes=3, arguments=model.arguments).input_size == 96


def test_names_are_listed_by_family_and_can_be_built() -> None:
    assert "digits/cnn_4_8" in catalog.names("digits")
    everything = set(catalog.names())
    assert {"timm/resnet50", "torchvision/resnet50", "cifar/resnet8x4", "digits/cnn_4_8"} <= everything


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnt50", r"timm model 'resnt50' is unknown\. Did you mean 'resnet50'"),
        ("torchvision/resnet5", r"torchvision model 'resnet5' is unknown\. Did you mean 'resnet50'"),
        ("cifar/resnet8x5", r"'resnet8x5' is unknown\. Did you mean 'resnet8x4'"),
        ("digits/cnn4_8", r"'cnn4_8' is unknown\. Did you mean 'cnn_4_8'"),
        ("tim/resnet50", r"family 'tim' is unknown\. Did you mean 'timm'"),
        ("resnet8x4", r"names no family\. Did you mean cifar/resnet8x4\?"),
        ("digits", "is a family: name one of its networks, such as digits/cnn_4_8"),
    ],
)
def test_unknown_names_offer_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.build(name)


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/squeezenet1_1", "cifar/resnet8", "digits/cnn_4_8"])
def test_unknown_argument_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="wings"):
        catalog.build(name, num_classes=2, arguments={"wings": 2})


def test_number_of_classes_is_no_argument() -> None:
    with pytest.raises(ModelError, match="cannot be among the arguments"):
        catalog.build("digits/cnn_4_8", arguments={"num_classes": 3})


@pytest.mark.parametrize("name", ["digits/cnn_4_8", "cifar/resnet8", "timm/test_resnet"])
def test_number_of_classes_follows_from_the_checkpoint(name: str, tmp_path: Path) -> None:
    saved = catalog.build(name, num_classes=23)
    loaded = catalog.build(name, checkpoint=checkpoint(tmp_path, saved))
    assert loaded.num_classes == 23
    assert same(loaded, saved)


def test_checkpoint_says_how_it_wants_its_pixels(tmp_path: Path) -> None:
    path = checkpoint(
        tmp_path,
        catalog.build("digits/cnn_4_8", num_classes=2),
        architecture="digits/cnn_4_8",
        mean="0.1,0.2,0.3",
        std="0.4,0.5,0.6",
        classes='["cat", "dog"]',
        input_size="12",
    )
    loaded = catalog.build(None, checkpoint=path)
    assert loaded.name == "digits/cnn_4_8"
    assert loaded.normalization == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert (loaded.classes, loaded.input_size) == (("cat", "dog"), 12)
    assert catalog.build(None, checkpoint=path, mean=(0.0,) * 3).normalization["mean"] == (0.0,) * 3


def test_teacher_of_cifar100_is_read_with_its_hundred_classes(shared_data: Path) -> None:
    path = shared_data / "teachers" / "cifar100-wrn_16_2.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    teacher = catalog.build("cifar/wrn_16_2", checkpoint=path)
    assert teacher.num_classes == 100
    with pytest.raises(ModelError, match=r"missing: .*\n.*\n.*\n  It says that it holds cifar/wrn_16_2\."):
        catalog.build("cifar/resnet20", checkpoint=path)


def test_checkpoint_of_another_number_of_classes_is_refused_or_gets_a_new_head(tmp_path: Path) -> None:
    saved = catalog.build("digits/cnn_4_8", num_classes=10)
    path = checkpoint(tmp_path, saved)
    with pytest.raises(ModelError, match="has 10 classes, expected 4"):
        catalog.build("digits/cnn_4_8", num_classes=4, checkpoint=path)
    fresh = catalog.build("digits/cnn_4_8", num_classes=4, checkpoint=path, keep_head=False)
    assert fresh.weights()["classifier.weight"].shape == (4, 8)
    assert torch.equal(fresh.weights()["features.stage2.0.weight"], saved.weights()["features.stage2.0.weight"])
    assert same(catalog.build("digits/cnn_4_8", num_classes=10, checkpoint=path, keep_head=False), saved)


def test_checkpoint_without_a_head_starts_a_student_but_is_no_teacher(tmp_path: Path) -> None:
    saved = catalog.build("timm/test_vit", num_classes=0)
    path = checkpoint(tmp_path, saved)
    student = catalog.build("timm/test_vit", num_classes=4, checkpoint=path, keep_head=False)
    assert torch.equal(student.weights()["blocks.0.attn.qkv.weight"], saved.weights()["blocks.0.attn.qkv.weight"])
    assert student.notes == (f"{path} has no classifier: the classifier starts anew, as does all else that it lacks.",)
    with pytest.raises(ModelError, match="no classifier"):
        catalog.build("timm/test_vit", checkpoint=path)


@pytest.mark.parametrize("handed_in", [False, True])
def test_classes_in_another_order_are_put_in_order_and_other_names_said(tmp_path: Path, handed_in: bool) -> None:
    saved = catalog.build("digits/cnn_4_8", num_classes=3)
    path = checkpoint(tmp_path, saved, classes='["cat", "dog", "fox"]')

    def start(classes: tuple[str, ...]) -> VisionModel:
        model = digits.create("cnn_4_8", 3) if handed_in else "digits/cnn_4_8"
        return catalog.build(model, num_classes=3, checkpoint=path, classes=classes, keep_head=False)

    model = start(("fox", "cat", "dog"))
    assert model.weights()["classifier.weight"].equal(saved.weights()["classifier.weight"][[2, 0, 1]])
    assert model.weights()["classifier.bias"].equal(saved.weights()["classifier.bias"][[2, 0, 1]])
    assert (model.classes, model.notes) == (("fox", "cat", "dog"), ())
    other = start(("a", "b", "c"))
    assert other.weights()["classifier.weight"].equal(saved.weights()["classifier.weight"])
    assert "other names for its classes (cat, dog, fox): the classifier is kept as it is" in other.notes[0]


def test_classes_in_another_order_are_refused_where_the_classifier_is_not_plain(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, catalog.build("digits/cnn_3_8", num_classes=3), classes='["cat", "dog", "fox"]')
    module = digits.create("cnn_3_8", 3)
    with pytest.raises(ModelError, match=r"another order \(cat, dog, fox, \.\.\.\).* which layer .* is not plain"):
        catalog.build(module, checkpoint=path, classes=("fox", "cat", "dog"))


def test_new_head_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, catalog.build("cifar/resnet8", num_classes=10))

    def start() -> VisionModel:
        torch.manual_seed(3)
        return catalog.build("cifar/resnet8", num_classes=4, checkpoint=path, keep_head=False)

    assert same(start(), start())


def test_transformer_of_another_image_size_gets_its_positions_resampled(tmp_path: Path) -> None:
    saved = catalog.build("timm/test_vit", num_classes=6)
    loaded = catalog.build("timm/test_vit", checkpoint=checkpoint(tmp_path, saved), input_size=96)
    assert loaded.num_classes == 6
    assert loaded.weights()["pos_embed"].shape != saved.weights()["pos_embed"].shape
    assert torch.equal(loaded.weights()["head.weight"], saved.weights()["head.weight"])


def test_a_file_that_lacks_half_of_a_network_is_refused_where_its_library_reads_it(tmp_path: Path) -> None:
    whole = catalog.build("timm/dla46_c", num_classes=3).weights()
    path = tmp_path / "half.safetensors"
    save_file({key: value for key, value in whole.items() if not key.startswith(("level4", "level5"))}, path)
    with pytest.raises(ModelError, match=r"does not fit timm/dla46_c:\n  missing: level4\S+ .* more\."):
        catalog.build("timm/dla46_c", checkpoint=path)


def test_what_a_library_leaves_as_it_was_is_told_from_what_it_reads() -> None:
    def read(state: dict[str, Tensor]) -> dict[str, Tensor]:
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        turned = {"0.weight": state["body"].transpose(0, 1), "1.weight": state["norm"], "0.bias": torch.zeros(4)}
        net.load_state_dict(turned, strict=False)
        return dict(net.state_dict())

    torch.manual_seed(1)
    given = {"body": torch.ones(3, 4, 1, 1), "norm": torch.ones(4)}
    found, lacking = read_by_library(read, given)
    after = torch.rand(2)
    assert found["0.weight"].eq(1).all()
    assert lacking == {"1.running_var", *(f"2.{key}" for key in ("weight", "bias")), *(
        f"3.{key}" for key in ("weight", "bias", "running_mean", "running_var"))}  # fmt: skip
    torch.manual_seed(1)
    read(given)
    assert torch.equal(after, torch.rand(2))  # that it was read twice draws nothing


def test_published_files_of_torchvision_are_read_in_todays_names() -> None:
    convert = families()["torchvision"].convert
    assert convert is not None
    with torch.device("meta"):
        today = catalog.build("torchvision/densenet121", num_classes=2).weights()
        inception = catalog.build("torchvision/googlenet", num_classes=2).weights()
    old = {re.sub(r"(denselayer\d+\.\w+?)(\d)\.", r"\1.\2.", key): value for key, value in today.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert convert("densenet121", Request(), old) == today
    assert convert("googlenet", Request(), {**inception, "aux1.fc1.weight": torch.ones(1)}) == inception


def test_function_of_a_file_is_called_with_classes_and_arguments(own: Path, tmp_path: Path) -> None:
    name = f"{own}:build"
    model = catalog.build(name, num_classes=3, arguments={"width": 6})
    assert (model.name, model.num_classes, model.input_size) == (name, 3, 16)
    assert model.normalization == {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    assert model.weights()["head.weight"].shape == (3, 6)
    assert catalog.build(name).num_classes == 7
    loaded = catalog.build(name, checkpoint=checkpoint(tmp_path, model), arguments={"width": 6})
    assert same(loaded, model)
    assert loaded.num_classes == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("biuld", r"has no function 'biuld'\. Did you mean 'build'"),
        ("crash", "crash failed: KeyError: 'layers'"),
        ("number", "number returned int, expected a torch.nn.Module"),
        ("narrow", "gives 7 logits, but there are 3 classes"),
    ],
)
def test_mistakes_in_ones_own_file_are_named(own: Path, function: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.build(f"{own}:{function}", num_classes=3)


def test_own_file_that_is_missing_or_broken_is_named(own: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist\. Did you mean 'own\.py'"):
        catalog.build(f"{own.with_name('onw.py')}:build")
    own.write_text("import nothing_of_this_name\n")
    with pytest.raises(ModelError, match="cannot be imported: ModuleNotFoundError"):
        catalog.build(f"{own}:build")
    with pytest.raises(ModelError, match="cannot be called with wings"):
        catalog.build(lambda num_classes=2: nn.Identity(), arguments={"wings": 2})


def test_module_from_python_gets_pixels_as_they_are_and_is_counted() -> None:
    module = digits.create("cnn_4_8", 6)
    module.features.eval()
    model = catalog.build(module)
    assert model.net is module
    assert model.num_classes == 6
    assert model.normalization == {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    assert not module.features.training
    assert module.training
    with pytest.raises(ModelError, match="gives 6 logits, but there are 4 classes"):
        catalog.build(module, num_classes=4)


def test_function_from_python_is_called() -> None:
    assert catalog.build(lambda num_classes: digits.create("cnn_4_8", num_classes), num_classes=3).num_classes == 3


def test_model_that_is_ready_is_taken_as_it_is() -> None:
    model = catalog.build("digits/cnn_4_8", num_classes=3)
    assert catalog.build(model, num_classes=3) is model
    with pytest.raises(ModelError, match="has 3 classes, expected 4"):
        catalog.build(model, num_classes=4)
    with pytest.raises(ModelError, match="is ready, with weights"):
        catalog.build(model, pretrained=True)


class Sized(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 24:
            raise ValueError("wants 24 x 24")
        return images.mean((2, 3))


def test_module_that_cannot_be_tried_needs_an_input_size() -> None:
    with pytest.raises(ModelError, match=r"ValueError: wants 24 x 24\. Give input_size"):
        catalog.build(Sized())
    assert catalog.build(Sized(), input_size=24).num_classes == 3
    assert catalog.build(Sized(), num_classes=3).num_classes == 3


class Cast(nn.Module):
    """In half precision within, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3).half()

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.body(images.half()).float().mean((2, 3))
        return answer


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_in_another_precision_is_taken_in_float32_and_that_is_said(tmp_path: Path, kind: torch.dtype) -> None:
    saved = digits.create("cnn_4_8", 3)
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    for made in (digits.create("cnn_4_8", 3).to(kind), lambda num_classes=3: digits.create("cnn_4_8", 3).to(kind)):
        model = catalog.build(made, num_classes=3, checkpoint=tmp_path / "w.safetensors")
        assert all(torch.equal(value, saved.state_dict()[key]) for key, value in model.weights().items())
        assert str(kind).removeprefix("torch.") in model.notes[0]
        assert model.notes[0].endswith("they are taken in float32.")
        assert model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape == (1, 3)


def test_a_network_that_converts_images_itself_stays_as_it_is() -> None:
    model = catalog.build(Cast())
    assert {value.dtype for value in model.parameters()} == {torch.float16}
    assert (model.num_classes, model.notes) == (4, ())


def test_errors_of_ones_own_network_are_told_in_its_words() -> None:
    with pytest.raises(ModelError, match=r"ValueError: wants 24 x 24$"):
        catalog.build(Sized(), input_size=16)
    model = catalog.build(Sized(), num_classes=3)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    for features in ([], [""]):
        with pytest.raises(
            ModelError, match=r"Sized fails on images \[2, 3, 16, 16\] of float32: ValueError: wants 24"
        ):
            model(images, features=features)


def test_a_network_of_timm_that_is_handed_in_is_shown_pixels_as_timm_does_and_that_is_said() -> None:
    import timm

    for made in (timm.create_model("test_vit", num_classes=3), lambda: timm.create_model("test_vit")):
        model = catalog.build(made, input_size=160)
        assert model.normalization == catalog.build("timm/test_vit").normalization
        assert "mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5, as its pretrained_cfg of timm says" in model.notes[-1]
    gray = catalog.build(timm.create_model("test_resnet", in_chans=1), channels=1)
    assert gray.normalization == {"mean": (0.5,), "std": (0.5,)}
    given = catalog.build(made, input_size=160, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    assert (given.normalization["mean"], given.notes) == ((0.4, 0.4, 0.4), ())
    named = timm.create_model("test_vit")
    named.mean = [0.1, 0.1, 0.1]
    assert catalog.build(named, input_size=160).normalization == {"mean": (0.1, 0.1, 0.1), "std": (1.0, 1.0, 1.0)}


def test_model_without_a_name_needs_a_checkpoint_that_tells(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No network is named"):
        catalog.build(None)
    path = checkpoint(tmp_path, catalog.build("digits/cnn_4_8"))
    with pytest.raises(ModelError, match="does not say which network it holds"):
        catalog.build(None, checkpoint=path)
    path = checkpoint(tmp_path, catalog.build("digits/cnn_4_8"), architecture="evil.py:build")
    with pytest.raises(ModelError, match="code that does not come with it"):
        catalog.build(None, checkpoint=path)


def test_checkpoint_and_pretrained_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="both given"):
        catalog.build("timm/test_vit", checkpoint=tmp_path / "x.pt", pretrained=True)
