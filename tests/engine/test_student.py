from __future__ import annotations

import hashlib
import json
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from counterpoise.decoding import Reading
from counterpoise.engine.student import load_student, save_student
from counterpoise.errors import ModelError, RunError
from counterpoise.models import catalog, digits
from counterpoise.models.classmap import map_teacher
from counterpoise.models.network import VisionModel

CLASSES = ("circle", "square", "stripes")
METRICS = {"last": {"top1": 71.25, "top5": 100.0}, "best": {"top1": 72.5, "epoch": 3}}
PROVENANCE = {"teacher": {"architecture": "timm/resnet50", "sha256": "ab" * 32}, "commit": None}


@pytest.fixture(params=["digits/cnn_4_8", "timm/test_resnet", "timm/test_vit"])
def model(request: pytest.FixtureRequest) -> VisionModel:
    torch.manual_seed(0)
    return trained(catalog.build(request.param, num_classes=3, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1)))


@pytest.fixture
def small() -> VisionModel:
    torch.manual_seed(0)
    return trained(catalog.build("digits/cnn_4_8", num_classes=3))


def trained(model: VisionModel) -> VisionModel:
    """With statistics of batch norm and other state away from where they start."""
    for value in model.net.state_dict().values():
        value.add_(torch.rand(value.shape).mul(0.1)) if value.is_floating_point() else value.add_(5)
    return model.eval()


def images(model: VisionModel) -> Tensor:
    assert model.input_size is not None
    shape = (2, 3, model.input_size, model.input_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def save(model: VisionModel, folder: Path) -> Path:
    save_student(model, folder, classes=CLASSES, metrics=METRICS, provenance=PROVENANCE)
    return folder


def test_student_answers_as_the_model_that_was_saved(model: VisionModel, tmp_path: Path) -> None:
    student = load_student(save(model, tmp_path / "student"))
    assert not student.training
    assert torch.equal(student(images(model)), model(images(model)))
    assert student.classes == CLASSES
    assert student.normalization == model.normalization
    assert (student.name, student.input_size, student.crop_share) == (model.name, model.input_size, model.crop_share)
    assert student.description.metrics == METRICS
    assert student.description.provenance == PROVENANCE


def test_settings_that_differ_from_the_networks_own_are_kept(tmp_path: Path) -> None:
    model = trained(catalog.build("timm/test_vit", num_classes=3, input_size=96, arguments={"depth": 2}))
    model.crop_share = 0.8
    student = load_student(save(model, tmp_path / "student"))
    assert (student.input_size, student.crop_share) == (96, 0.8)
    assert student.arguments == {"depth": 2, "img_size": 96}
    assert torch.equal(student(images(model)), model(images(model)))


def test_how_pictures_are_read_and_shown_is_kept_and_older_folders_crop(tmp_path: Path) -> None:
    model = catalog.build("digits/cnn_4_8", num_classes=3)
    model.fit, model.whole, model.reading = "pad", True, Reading("ignore", 4095)
    folder = save(model, tmp_path / "student")
    student = load_student(folder)
    assert (student.fit, student.whole, student.reading) == ("pad", True, Reading("ignore", 4095))
    described = json.loads((folder / "student.json").read_text())
    for key in ("fit", "whole", "alpha", "white_level"):
        del described["input"][key]
    (folder / "student.json").write_text(json.dumps(described))
    older = load_student(folder)
    assert (older.fit, older.whole, older.reading) == ("crop", False, Reading("white", None))


@pytest.mark.parametrize(("fit", "extent"), [("squash", (160, 160)), ("pad", (160, 40))])
def test_timm_shows_all_of_a_picture_where_the_student_sees_it(
    tmp_path: Path, fit: str, extent: tuple[int, int]
) -> None:
    model = catalog.build("timm/test_resnet", num_classes=3)  # readies torchvision for timm
    model.fit = fit
    import timm
    from PIL import Image

    net = timm.create_model(f"local-dir:{save(model, tmp_path / 'student')}", pretrained=True)
    settings = timm.data.resolve_model_data_config(net)
    pixels = timm.data.create_transform(**{**settings, "mean": (0,) * 3, "std": (1,) * 3})(
        Image.new("RGB", (200, 50), "white")
    )
    assert pixels.shape == (3, 160, 160)
    assert int((pixels > 0).all(0).sum()) == extent[0] * extent[1]


@pytest.mark.parametrize("size", [160, 96])
@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit"])
def test_timm_reads_the_folder_by_itself(name: str, size: int, tmp_path: Path) -> None:
    import timm

    mean, std = (0.1, 0.2, 0.3), (0.3, 0.2, 0.1)
    model = trained(catalog.build(name, num_classes=3, input_size=size, mean=mean, std=std))
    folder = save(model, tmp_path / "student")
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(net)
    assert [tuple(data[key]) for key in ("mean", "std", "input_size")] == [mean, std, (3, size, size)]
    mean_, std_ = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    normalized = (images(model) / 255 - mean_) / std_
    torch.testing.assert_close(net(normalized), model(images(model)), rtol=1e-4, atol=1e-4)
    random = timm.create_model(f"local-dir:{folder}").eval()
    assert not torch.allclose(random(normalized), model(images(model)), atol=1e-2)  # so the test above tells something


def test_equal_students_give_equal_bytes(small: VisionModel, tmp_path: Path) -> None:
    first, second = save(small, tmp_path / "a" / "student"), save(small, tmp_path / "b" / "student")
    assert sorted(path.name for path in first.iterdir()) == ["README.md", "model.safetensors", "student.json"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_weights_file_holds_the_networks_own_names_and_nothing_else(small: VisionModel, tmp_path: Path) -> None:
    path = save(small, tmp_path / "student") / "model.safetensors"
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(small.net.state_dict())
        assert file.metadata() == {"format": "pt"}
    assert hashlib.sha256(path.read_bytes()).hexdigest() == small.weights_hash()


def test_description_is_plain_json(small: VisionModel, tmp_path: Path) -> None:
    values = json.loads((save(small, tmp_path / "student") / "student.json").read_text())
    assert values == {
        "format": 1,
        "architecture": "digits/cnn_4_8",
        "arguments": {},
        "task": "classification",
        "classes": list(CLASSES),
        "input": {
            "size": 8,
            "crop_share": 1.0,
            "fit": "crop",
            "whole": False,
            "reduction": 1.0,
            "window": None,
            "alpha": "white",
            "white_level": None,
            "channels": 3,
        },
        "normalization": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "metrics": METRICS,
        "provenance": PROVENANCE,
        "weights_sha256": small.weights_hash(),
    }


def test_student_is_found_in_its_run_folder(small: VisionModel, tmp_path: Path) -> None:
    save(small, tmp_path / "run" / "student")
    assert torch.equal(load_student(tmp_path / "run")(images(small)), small(images(small)))


def test_student_is_a_checkpoint_that_says_what_it_is(model: VisionModel, tmp_path: Path) -> None:
    loaded = catalog.build(None, checkpoint=save(model, tmp_path / "run" / "student").parent)
    assert (loaded.name, loaded.classes, loaded.normalization) == (model.name, CLASSES, model.normalization)
    assert loaded.weights_hash() == model.weights_hash()
    student = catalog.build(None, checkpoint=tmp_path / "run", num_classes=5, classes="abcde", keep_head=False)
    assert (student.num_classes, student.classes) == (5, tuple("abcde"))


def test_compiled_student_is_saved_without_a_prefix(small: VisionModel, tmp_path: Path) -> None:
    expected = small(images(small))
    small.net = torch.compile(small.net, backend="eager")
    assert torch.equal(load_student(save(small, tmp_path / "student"))(images(small)), expected)


def test_older_student_is_replaced(small: VisionModel, tmp_path: Path) -> None:
    save(small, tmp_path / "student")
    small.net.classifier.bias.data.add_(1)
    save(small, tmp_path / "student")
    assert torch.equal(load_student(tmp_path / "student")(images(small)), small(images(small)))
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_older_student_survives_where_the_new_one_cannot_be_written(small: VisionModel, tmp_path: Path) -> None:
    folder = save(small, tmp_path / "student")
    expected = small(images(small))
    small.net.classifier.bias.data.add_(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write beyond fails, as on a full disk
    try:
        with pytest.raises(RunError, match=r"could not be written: .*\. The older student is intact\."):
            save(small, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(load_student(folder)(images(small)), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_student_is_whole_after_a_crash_between_the_renames(small: VisionModel, tmp_path: Path) -> None:
    folder = save(small, tmp_path / "student")
    folder.rename(tmp_path / ".student.old")
    (tmp_path / ".student.partial").mkdir()
    save(small, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def change(folder: Path, **values: object) -> None:
    path = folder / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def within(folder: Path, section: str, **values: object) -> None:
    change(folder, **{section: {**json.loads((folder / "student.json").read_text())[section], **values}})


def damage(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage, r"model\.safetensors is not the file that student\.json describes: its sha256 is"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"incomplete: model\.safetensors cannot be read"),
        (lambda folder: (folder / "student.json").unlink(), "neither a student folder nor a finished run"),
        (lambda folder: (folder / "student.json").write_text("{"), r"student\.json cannot be read"),
        (lambda folder: (folder / "student.json").write_text("[]"), r"student\.json is damaged"),
        (lambda folder: change(folder, format=3), "format 3, this counterpoise reads up to 2: pip install -U"),
        (lambda folder: change(folder, classes=3), r"student\.json is damaged: classes"),
        (lambda folder: change(folder, classes=["a", "b"]), "has 3 classes, expected 2"),
        (lambda folder: change(folder, classes=[]), r"student\.json is damaged: classes"),
        (lambda folder: within(folder, "input", size=100_000), r"student\.json is damaged: input\.size"),
        (lambda folder: within(folder, "input", window=[2**40, 8]), r"student\.json is damaged: input\.window"),
        (lambda folder: within(folder, "input", reduction=float("nan")), r"student\.json is damaged: input\.reduction"),
        (lambda folder: within(folder, "input", crop_share=1e-300), r"student\.json is damaged: input\.crop_share"),
        (lambda folder: within(folder, "input", channels=4), r"student\.json is damaged: .*input\.channels is 4"),
        (lambda folder: within(folder, "normalization", mean=[float("nan")] * 3), "mean and std need three finite"),
        (lambda folder: within(folder, "normalization", std=[1e-300] * 3), "mean and std need three finite"),
        (lambda folder: change(folder, architecture="digits/cnn_4_9"), r"does not fit digits/cnn_4_9"),
        (lambda folder: change(folder, architecture="evil.py:build"), r"is evil\.py:build, code that .* trust it"),
    ],
)
def test_spoiled_folder_is_refused(
    small: VisionModel, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = save(small, tmp_path / "student")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        load_student(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "is damaged, or no safetensors file"),
        (lambda content: content[:-10], "is damaged, or no safetensors file"),
        (lambda content: (2**62).to_bytes(8, "little") + content[8:], "is damaged, or no safetensors file"),
        (lambda content: (200_000).to_bytes(8, "little") + b'{"a":' * 40_000, "is damaged, or no safetensors file"),
        (lambda content: spoiled(content, lambda value: value * float("nan")), "not all numbers of .* are finite"),
        (lambda content: spoiled(content, lambda value: value.to(torch.int32)), "is torch.int32, expected floats"),
        (lambda content: spoiled(content, lambda value: value[:1]), "of another shape"),
    ],
)
def test_damaged_weights_with_a_right_hash_are_refused(
    small: VisionModel, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    folder = save(small, tmp_path / "student")
    content = spoil((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").write_bytes(content)
    change(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ModelError, match=message):
        load_student(folder)


def spoiled(content: bytes, change: Callable[[Tensor], Tensor]) -> bytes:
    tensors = safetensors.torch.load(content)
    return safetensors.torch.save({**tensors, "classifier.weight": change(tensors["classifier.weight"])})


def test_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError, match=r"does not exist\. Did you mean 'runs'\?"):
        load_student(tmp_path / "rnus")
    (tmp_path / "runs" / "run.yaml").touch()
    with pytest.raises(ModelError, match=r"it is not finished\. Go on with --resume"):
        load_student(tmp_path / "runs")
    with pytest.raises(ModelError, match="is a file, expected a student folder"):
        load_student(tmp_path / "runs" / "run.yaml")


def test_network_of_ones_own_must_be_handed_in(tmp_path: Path) -> None:
    model = trained(catalog.build(digits.create("cnn_4_8", 3), input_size=8))
    folder = save(model, tmp_path / "student")
    with pytest.raises(ModelError, match="DigitsNetwork, code that a student folder does not bring") as refused:
        load_student(folder)
    assert f"load_student('{folder}', model=DigitsNetwork)" in str(refused.value)  # no file names it
    student = load_student(folder, model=digits.create("cnn_4_8", 3))
    assert torch.equal(student(images(model)), model(images(model)))


def test_what_has_no_form_in_json_is_refused(small: VisionModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot hold this: Object of type Tensor"):
        save_student(small, tmp_path / "s", classes=CLASSES, metrics={"top1": torch.ones(1)}, provenance={})
    with pytest.raises(ModelError, match="3 logits, but 2 class names"):
        save_student(small, tmp_path / "s", classes=("a", "b"), metrics={}, provenance={})
    with pytest.raises(ModelError, match="a teacher, not a student"):
        save_student(map_teacher(small, CLASSES[:2], _mapping(tmp_path)), tmp_path / "s", classes=CLASSES[:2],
                     metrics={}, provenance={})  # fmt: skip
    assert not (tmp_path / "s").exists()


def _mapping(folder: Path) -> Path:
    (folder / "classes.yaml").write_text("circle: 0\nsquare: [1, 2]\n")
    return folder / "classes.yaml"


def test_pictures_of_any_kind_are_predicted(
    small: VisionModel, tmp_path: Path, make_picture: Callable[..., Image.Image]
) -> None:
    student = load_student(save(small, tmp_path / "student"))
    picture = make_picture("circle", 0).convert("RGBA")
    picture.save(tmp_path / "photo.png")
    answers = student.predict([tmp_path / "photo.png", picture])
    assert answers[0] == answers[1]
    assert answers[0]["class"] in CLASSES
    assert sum(row["probability"] for row in answers[0]["top"]) == pytest.approx(1)


def test_card_shows_how_to_use_the_student(
    model: VisionModel,
    tmp_path: Path,
    make_picture: Callable[..., Image.Image],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save(model, tmp_path / "student")
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "image-classification"
    assert "last.top1 | 71.25" in card.text
    assert "teacher.architecture | timm/resnet50" in card.text
    make_picture("square", 0).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(blocks) == (2 if model.name.startswith("timm/") else 1)
    for block in blocks:
        exec(block, {})
    assert capsys.readouterr().out.split()[0] in CLASSES
