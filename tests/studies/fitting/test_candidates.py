"""Candidates from lists, patterns and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterpoise.errors import ConfigError, CounterpoiseError
from counterpoise.models import catalog
from counterpoise.studies.fitting.candidates import Candidates, expand, read


def test_patterns_sizes_and_precisions_multiply() -> None:
    found = expand(Candidates(students=["timm/mobilenetv3_small_*"], sizes=[160, 224], precisions=["float32", "int8"]))
    models = [name for name in catalog.names("timm") if name.startswith("timm/mobilenetv3_small_")]
    assert len(models) > 2
    assert [(c.model, c.size, c.precision) for c in found] == [
        (model, size, precision) for model in models for size in (160, 224) for precision in ("float32", "int8")
    ]
    assert len({c.name for c in found}) == len(found)
    assert found[0].student == found[1].student  # trained once for both precisions
    assert found[0].section() == {"model": models[0], "arguments": {}, "input_size": 160}


def test_arguments_vary_as_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "candidates.yaml"
    file.write_text(
        "students:\n"
        "  - digits/cnn_4_8\n"
        "  - model: timm/resnet10t\n"
        "    arguments: {drop_rate: 0.1}\n"
        "    vary: {base_width: [32, 64], layers: [[1, 1, 1, 1], [2, 2, 2, 2]]}\n"
    )
    found = expand(read(file))
    assert [dict(c.arguments) for c in found] == [{}] + [
        {"drop_rate": 0.1, "base_width": width, "layers": layers}
        for width in (32, 64)
        for layers in ([1, 1, 1, 1], [2, 2, 2, 2])
    ]
    assert len({c.student for c in found}) == 5
    assert all(c.student.replace("_", "").replace("-", "").replace(".", "").isalnum() for c in found)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"students": []}, "There are no candidates"),
        ({"students": ["timm/no_such_net_*"]}, "No network is called like 'timm/no_such_net_*'"),
        ({"students": ["mobilenet*"]}, "write such as timm/mobilenet*"),
        ({"students": ["tim/mobilenet*"]}, "Did you mean 'timm'?"),
        ({"students": ["digits/cnn_4_8"], "sizes": [0]}, "1 pixel or more"),
        (
            {"students": [{"model": "timm/resnet18", "arguments": {"a": 1}, "vary": {"a": [2]}}]},
            "a is among arguments and vary",
        ),
    ],
)
def test_what_stands_for_no_candidate_is_said(asked: dict[str, object], told: str) -> None:
    with pytest.raises(CounterpoiseError) as caught:
        expand(Candidates.model_validate(asked))
    assert told in str(caught.value)


def test_a_file_with_mistakes_names_them(tmp_path: Path) -> None:
    file = tmp_path / "candidates.yaml"
    file.write_text("studnets: [digits/cnn_4_8]\nsizes: [small]\n")
    with pytest.raises(ConfigError, match=r"studnets: unknown section\. Did you mean 'students'") as caught:
        read(file)
    assert "sizes" in str(caught.value)
