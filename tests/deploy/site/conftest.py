"""Sites of small networks written by hand, and the page's own modules in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from counterpoise import tasks
from counterpoise.deploy import folder as exports_folder
from counterpoise.deploy.site import runtime, samples, site
from counterpoise.errors import RuntimeMissingError
from counterpoise.models import folder
from counterpoise.system.server import Server, from_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Sites = Callable[..., Path]
EDGE = 8


@pytest.fixture(scope="session")
def modules(chromium: Browser) -> Iterator[Page]:
    """A page of the origin from which the site's modules can be imported: `await import("./resampling.js")`."""
    with Server(from_folder(Path(str(resources.files("counterpoise.deploy.site") / "page")))) as server:
        server.start()
        page = chromium.new_page()
        page.goto(f"{server.address}LICENSE.onnxruntime.txt")
        yield page
        page.close()
        server.shutdown()


@pytest.fixture(scope="session")
def gpu(chromium: Browser) -> Iterator[Browser]:
    """A second Chromium, with WebGPU computed by software."""
    flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader"]
    browser = chromium.browser_type.launch(
        executable_path=shutil.which("chromium"), args=[*flags, "--enable-features=Vulkan"]
    )
    yield browser
    browser.close()


def network(path: Path, classes: int, *, dense: bool, noise: float = 0.0, sides: Sequence[int | str]) -> Path:
    """An ONNX file: uint8 pixels [1, 3, *sides] to logits that depend on the mean color, or on that of each pixel."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = rng.normal(size=(classes, 3, 1, 1)) / 30
    weights += noise * np.random.default_rng(1).normal(size=weights.shape) / 30
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "gray"], ["centered"]),
        helper.make_node("Conv", ["centered", "weights"], ["dense"]),
    ]
    if not dense:
        nodes.append(helper.make_node("ReduceMean", ["dense", "axes"], ["logits"], keepdims=0))
    else:
        nodes[-1].output[0] = "logits"
    constants = {"gray": np.array(128, np.float32), "weights": weights.astype(np.float32), "axes": np.array([2, 3])}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 3, *sides])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, *sides] if dense else [1, classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    save(model, path)
    return path


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    """make_site(name="lamp", classes=(...), task="classification", exports=2, ...) -> folder of a site."""

    def make(
        name: str = "lamp",
        classes: tuple[str, ...] = ("red", "green", "blue", "gray", "amber", "violet"),
        task: str = "classification",
        exports: int = 2,
        thresholds: tuple[float, ...] | None = None,
        promises: dict[str, Any] | None = None,
        any_size: bool = False,
        size: tuple[int, int] = (EDGE, EDGE),
    ) -> Path:
        root = tmp_path_factory.mktemp("site")
        files = {
            precision: network(
                root / f"{precision}.onnx",
                len(classes),
                dense=task.endswith("segmentation"),
                noise=noise,
                sides=["height", "width"] if any_size else list(size),
            )
            for precision, noise in (("float32", 0.0), ("int8", 0.02))[:exports]
        }
        values: dict[str, Any] = {
            "format": 1,
            "architecture": "test/net",
            "arguments": {},
            "task": task,
            "classes": classes,
            "input": {"size": EDGE, "crop_share": 0.875 if task == "classification" else 1.0},
            "normalization": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
            "metrics": {"last": {"top1": 61.57, "miou": 40.0}},
            "provenance": {},
            "weights_sha256": "",
            "thresholds": None if thresholds is None else {"last": thresholds},
        }
        student = folder.Description.model_validate(values)
        try:
            runtime.files()
        except RuntimeMissingError as error:
            if "cannot be reached" in str(error):
                pytest.skip(str(error))
            raise
        out = root / "site"
        share = 0.875 if task == "classification" and size[0] == size[1] else None
        given = exports_folder.Input(size=size, any_size=any_size, batch=1, crop_share=share).model_dump()
        shown = student, tasks.get(task), name, given, files, samples.drawn(3), "Drawn for tests."
        site.write(out, *shown, promises=promises)
        return out

    return make


@pytest.fixture(scope="session")
def classifier(make_site: Sites) -> Iterator[Server]:
    """The site of a classifier, served."""
    yield from serve(make_site())


@pytest.fixture(scope="session")
def segmenter(make_site: Sites) -> Iterator[Server]:
    """The site of a network that segments, served."""
    yield from serve(make_site(task="segmentation"))


def serve(place: Path) -> Iterator[Server]:
    """A site as `--serve` serves it."""
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        yield server
        server.shutdown()
