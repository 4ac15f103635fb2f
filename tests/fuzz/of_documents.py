"""Documents that people write, and those of models on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mutators
import yaml
from campaign import Format
from making import copied, file, yaml_file

from counterpoise import config

COMPARE: dict[str, Any] = {
    "out": "runs",
    "run": {
        "data": {"source": "digits", "options": {"train_size": 100}},
        "train": {"epochs": 2},
        "student": {"model": "digits/cnn_4_8"},
    },
    "pairs": {"all": {"teacher": {"model": "digits/cnn_8_16", "checkpoint": "teacher"}}},
    "methods": {
        "kd": {"objective": {"forward_kl": {"weight": 0.9}}},
        "balance": {"objective": {"balance": {"weight": 0.9, "reverse_weight": 2.0}}},
    },
    "seeds": [0, 1],
    "baseline": "kd",
    "primary": "balance",
}

SEARCH = {
    "out": "found",
    "run": {**COMPARE["run"], **COMPARE["pairs"]["all"]},
    "ranges": {
        "learning_rate": {"key": "train.optimizer.learning_rate", "low": 0.01, "high": 0.1, "log": True},
        "weight_decay": {"key": "train.optimizer.weight_decay", "low": 1e-5, "high": 1e-3, "log": True},
        "total": {"low": 0.5, "high": 2.0},
    },
    "methods": {
        "kd": {"objective": {"forward_kl": {"weight": "$total"}}},
        "balance": {
            "objective": {
                "balance": {
                    "weight": 1.0,
                    "forward_weight": "$total * $share",
                    "reverse_weight": "$total * (1 - $share)",
                }
            },
            "ranges": {"share": {"low": 0.1, "high": 0.9}},
        },
    },
    "trials": 4,
    "val_images": 20,
}


def _run_file(folder: Path) -> Any:
    return config.resolve(config.read(folder / "run.yaml"), "run file run.yaml")


def _compare_file(folder: Path) -> Any:
    from counterpoise.studies import plan

    return plan.read(folder / "compare.yaml").jobs


def _search_file(folder: Path) -> Any:
    from counterpoise.studies import search_plan

    found = search_plan.read(folder / "search.yaml")
    return [found.job(method, 0, found.rungs[0], 0) for method in found.plan.methods]


def _candidates(folder: Path) -> Any:
    from counterpoise.studies.fitting import candidates

    return candidates.expand(candidates.read(folder / "candidates.yaml"))


def _prompts(folder: Path) -> Any:
    from counterpoise.models.prompts import reading

    return reading.read(folder / "prompts.yaml").flat


def _hub(folder: Path) -> None:
    folder.mkdir()
    values = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 32, "width": 32},
        "crop_size": {"height": 28, "width": 28},
        "crop_pct": 0.9,
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "vit", "id2label": {"0": "cell", "1": "nerve"}, "num_labels": 2})
    )


def _hub_read(folder: Path) -> Any:
    from counterpoise.models import hf_folder

    config_ = hf_folder.description(folder)
    return hf_folder.names(config_), hf_folder.shown(folder)


def _class_map(folder: Path) -> Any:
    from counterpoise.models import classmap

    return classmap._read(folder / "classes.yaml")


DOCUMENTS: tuple[Format, ...] = (
    Format("run file", copied("run", "run.yaml"), "run.yaml", mutators.of_yaml, _run_file, anywhere=True),
    Format(
        "compare file",
        yaml_file("compare.yaml", COMPARE),
        "compare.yaml",
        mutators.of_yaml,
        _compare_file,
        anywhere=True,
    ),
    Format(
        "search file", yaml_file("search.yaml", SEARCH), "search.yaml", mutators.of_yaml, _search_file, anywhere=True
    ),
    Format(
        "candidates file",
        yaml_file(
            "candidates.yaml",
            {
                "students": ["digits/cnn_4_8", {"model": "digits/cnn_4_8", "arguments": {}, "vary": {"width": [1, 2]}}],
                "sizes": [8, 16],
                "precisions": ["float32", "int8"],
            },
        ),
        "candidates.yaml",
        mutators.of_yaml,
        _candidates,
        anywhere=True,
    ),
    Format(
        "prompts file",
        yaml_file(
            "prompts.yaml",
            {
                "classes": {
                    "cat": None,
                    "dog": ["a dog", "a {} that barks"],
                    "owl": {"name": ["owl", "bird of night"]},
                    "none": {"cosine": 0.2},
                },
                "templates": ["a photo of a {}."],
            },
        ),
        "prompts.yaml",
        mutators.of_yaml,
        _prompts,
    ),
    Format(
        "classes of a teacher",
        file("classes.yaml", lambda: yaml.safe_dump({"cell": [0, "cells"], "nerve": 2}).encode()),
        "classes.yaml",
        mutators.of_yaml,
        _class_map,
    ),
    Format("preprocessor_config.json", _hub, "preprocessor_config.json", mutators.of_json, _hub_read),
    Format("config.json of the Hub", _hub, "config.json", mutators.of_json, _hub_read),
)
