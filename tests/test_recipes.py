"""Every file of recipes/ is a run that this version understands."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data.label_map import read_label_map
from counterpoise.models import catalog
from counterpoise.objectives.base import find
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dense import DenseSum
from counterpoise.system import torchvision_guard

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
PARTS = [path for path in FILES if path.name == "common.yaml" or path.parent.name == "methods"]
RUNS = [path for path in FILES if path not in PARTS]
SCENES = [path for path in RUNS if path.relative_to(ROOT / "recipes").parts[0] in ("camvid", "cityscapes")]
PHOTOS = [path for path in RUNS if path not in SCENES]
DISTILLED = [path for path in SCENES if config.read(path).get("teacher")]
SMALL = [path for path in PHOTOS if path.relative_to(ROOT / "recipes").parts[0] == "cifar100"]
PAIRS = sorted({path.parent for path in SMALL if path.parent.name != "teachers"})
METHODS = ("kd", "dkd", "dist", "kd-standardized", "dkd-standardized")


def label(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes").with_suffix(""))


def resolved(path: Path) -> config.Run:
    return config.resolve(config.read(path), str(path))


@cache
def modules(model: str, arguments: str = "{}") -> set[str]:
    """Names of a network's modules, built without memory for its weights."""
    with torch.device("meta"):
        net = catalog.build(model, num_classes=11, arguments=json.loads(arguments)).net
    return {name for name, _ in net.named_modules()}


def known_tags(model: str) -> set[str]:
    torchvision_guard.ready()
    family, _, name = model.partition("/")
    if family == "torchvision":
        from torchvision.models import get_model_weights

        return {*get_model_weights(name).__members__, *get_model_weights(name.partition("_")[2]).__members__}
    import segmentation_models_pytorch as smp

    return set(smp.encoders.encoders[name.partition(":")[2]]["pretrained_settings"])


def test_there_are_recipes_of_all_data_sets() -> None:
    found = {path.relative_to(ROOT / "recipes").parts[0] for path in RUNS}
    assert found == {"camvid", "cityscapes", "cifar100", "imagenet", "patient"}


@pytest.mark.parametrize("path", SCENES, ids=label)
def test_recipe_of_scenes_resolves_and_its_terms_can_be_built(path: Path) -> None:
    run = resolved(path)
    assert run.task == "segmentation"
    terms: dict[str, config.Term] = {}
    for name, term in run.objective.items():
        values: dict[str, Any] = term.model_dump()
        if values.get("class_weight") == "frequency":  # numbers, once the masks are known
            values["class_weight"] = [1.0]
        terms[name] = config.Term.model_validate(values)
    objective = DenseSum(terms, run.data.scenes.resolution, void=255)
    assert ("teacher" in objective.needs) == (run.teacher is not None)


@pytest.mark.parametrize("path", PHOTOS, ids=label)
def test_recipe_of_photos_resolves_and_its_terms_can_be_built(path: Path) -> None:
    run = resolved(path)
    assert run.task == "classification"
    objective = WeightedSum(run.objective)
    assert not objective.needs & {"features", "embedding"}
    assert path.stem in ("alone", path.parent.name) or "teacher" in objective.needs or path.parent.name == "teachers"
    for side in [run.student] if run.teacher is None else [run.student, run.teacher]:
        family, _, name = str(side.model).partition("/")
        architecture, _, tag = name.partition(".")
        assert f"{family}/{architecture}" in catalog.names(family)
        if tag:
            import timm  # after the guard of models

            assert name in timm.list_pretrained()


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in PHOTOS if "imagenet" in label(p)], ids=label)
def test_recipe_of_imagenet_trains_a_step_on_small_synthetic_images(
    path: Path, tmp_path: Path, make_picture: Callable[..., Image.Image]
) -> None:
    for half in ("train", "val"):
        for shape in ("circle", "square"):
            (tmp_path / "photos" / half / shape).mkdir(parents=True)
            for number in range(2):
                make_picture(shape, number, (96, 80)).save(tmp_path / "photos" / half / shape / f"{number}.png")
    given = config.read(path)
    given["data"] |= {"path": str(tmp_path / "photos"), "size": 64, "workers": 0}
    given["train"] |= {"epochs": 1, "batch_size": 4, "device": "cpu", "precision": "fp32"}
    given["train"] |= {"schedule": {"name": "cosine"}}  # its warm-up is longer than this run
    given["out"] = str(tmp_path / "run")
    given_teacher = given.pop("teacher", None)  # its published weights are not at hand: random ones, for a step
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    if path.stem == "alone":
        counterpoise.train(tmp_path / "run.yaml")
    else:
        teacher = catalog.build(given_teacher["model"], num_classes=2).net
        counterpoise.distill(tmp_path / "run.yaml", teacher=teacher)
    assert counterpoise.load_student(tmp_path / "run" / "student").classes == ("circle", "square")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda path: path.name)
def test_pair_on_cifar_differs_from_its_alone_in_the_objective_only(pair: Path) -> None:
    alone = config.read(pair / "alone.yaml")
    assert {path.stem for path in pair.glob("*.yaml")} == {
        *("alone", "balance", "common"),
        *METHODS,
        *(f"balance-on-{host}" for host in METHODS),
    }
    teacher = config.read(ROOT / "recipes" / "cifar100" / "teachers" / f"{alone['teacher']['model'][6:]}.yaml")
    assert alone["teacher"]["checkpoint"] == teacher["out"]
    # recipe A trains students of mobile kind at a lower rate
    mobile = alone["student"]["model"][6:].startswith(("mobilenet", "shufflenet"))
    assert alone["train"]["optimizer"] == teacher["train"]["optimizer"] | ({"learning_rate": 0.01} if mobile else {})
    assert alone["train"]["epochs"] == 240
    assert alone["train"]["precision"] == "fp32"
    for path in pair.glob("*.yaml"):
        if path.stem != "common":
            run = config.read(path)
            assert {key for key in run if run[key] != alone.get(key)} <= {"objective", "out"}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda path: path.name)
@pytest.mark.parametrize("host", METHODS)
def test_balance_on_a_host_leaves_the_host_as_it_is(pair: Path, host: str) -> None:
    below = config.read(pair / f"{host}.yaml")["objective"]
    above = config.read(pair / f"balance-on-{host}.yaml")["objective"]
    assert {name: above[name] for name in below} == below
    assert len(above) == len(below) + 1


@pytest.mark.parametrize("path", SCENES, ids=label)
def test_network_is_in_the_catalog_and_its_published_weights_are_known(path: Path) -> None:
    student = resolved(path).student
    assert student.model is not None
    if ":tu-" in student.model:  # encoders of timm are too many for the catalog's list
        assert modules(student.model, json.dumps(student.arguments))
    else:
        assert student.model in catalog.names(student.model.partition("/")[0])
    if student.pretrained:
        assert student.pretrained in known_tags(student.model)


@pytest.mark.parametrize("path", DISTILLED, ids=label)
def test_teacher_is_what_a_recipe_beside_it_writes(path: Path) -> None:
    run = resolved(path)
    assert run.teacher is not None
    beside = config.read(path.with_name("teacher.yaml"))
    assert str(run.teacher.checkpoint) == beside["out"]
    alone = config.read(path.with_name("alone.yaml"))
    assert config.read(path)["student"] == alone["student"]
    assert config.read(path)["train"] == alone["train"]
    assert config.read(path)["objective"]["cross_entropy"] == alone["objective"]["cross_entropy"]


@pytest.mark.parametrize("path", DISTILLED, ids=label)
def test_features_are_modules_of_both_networks(path: Path) -> None:
    run = resolved(path)
    teacher = config.read(path.with_name("teacher.yaml"))["student"]["model"]
    for name, term in run.objective.items():
        if "features" in find(term.objective or name).kind.needs:
            assert term.arguments["student_feature"] in modules(str(run.student.model))
            assert term.arguments["student_feature"] in modules("smp/pspnet:resnet18")  # the other student of the flags
            assert term.arguments["teacher_feature"] in modules(teacher)


def test_cityscapes_has_its_19_classes() -> None:
    legend = read_label_map(ROOT / "recipes" / "cityscapes" / "classes.txt", 255)
    assert len(legend.classes) == 19
    assert legend.classes[0] == "road"
    assert legend.classes[18] == "bicycle"


def test_a_runs_folder_is_its_own() -> None:
    folders = [config.read(path)["out"] for path in RUNS]
    assert len(set(folders)) == len(folders)
