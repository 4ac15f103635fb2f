"""LiteRT (formerly TensorFlow Lite): one .tflite for Android, run in an environment of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from counterpoise.deploy import litert_worker
from counterpoise.deploy.base import Calibration, Format, Logits, Pixels, Request, Runtime, register
from counterpoise.deploy.environments import Environment, outside
from counterpoise.deploy.tracing import trace
from counterpoise.errors import CounterpoiseError, ExportError, MissingExtraError, RunError


@register
class LiteRT(Format):
    """Converted by litert-torch, in 8 bits by ai-edge-quantizer, run by ai-edge-litert.

    The first two pin other packages than the rest, so they live in an environment of their own, unless they are
    installed here. An export that is there takes the third alone, which pins nothing.
    """

    name = "litert"
    packages = ("ai_edge_litert",)
    files = ("model.tflite",)
    precisions = ("float32", "int8")
    dynamic_batch = False
    load: ClassVar[Callable[[str, int | None], Runtime]] = staticmethod(litert_worker.load)

    @property
    def environment(self) -> Environment:
        """With the torch of this one, so that a program saved here is read there."""
        return Environment("litert", ("litert-torch>=0.8", f"torch=={torch.__version__}"))

    @property
    def python(self) -> Path:
        if _is_here("litert_torch") or (_is_here("ai_edge_litert") and not self.environment.ready):
            return super().python
        return self.environment.python

    def check(self) -> None:
        if _is_here("ai_edge_litert") or self.environment.ready:
            return
        raise MissingExtraError(f"An export for {self.name}", self.name)

    def check_conversion(self) -> None:
        if _is_here("litert_torch") or self.environment.ready:
            return
        raise CounterpoiseError(
            f"--to {self.name} runs in an environment of its own, since its packages pin others than these. "
            f"--make-environment makes it in {self.environment.folder} (2 to 3 GB, some minutes)."
        )

    def make_environment(self) -> None:
        if not _is_here("litert_torch"):
            self.environment.make()

    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            program, described = Path(folder) / "program.pt2", _described(folder, metadata)
            with torch.no_grad():
                torch.export.save(trace(network, request.example), program)
            self._work("convert", program, described, out / self.files[0])
        return {}

    def quantize(
        self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path, calibration: Calibration
    ) -> dict[str, Any]:
        batches = list(calibration.batches(request.batch or 1))
        if not batches:
            given = len(calibration.pixels)
            raise ExportError(f"A batch of {request.batch} is calibrated on as many images at least, got {given}.")
        with tempfile.TemporaryDirectory() as folder:
            path, described = Path(folder), _described(folder, metadata)
            with torch.no_grad():
                program = trace(network, request.example)
            torch.export.save(program, path / "program.pt2")
            np.save(path / "pixels.npy", torch.stack(batches).numpy(), allow_pickle=False)
            (path / "nothing.json").write_text("{}", encoding="utf-8")
            self._work("convert", path / "program.pt2", path / "nothing.json", path / "float.tflite")
            patterns = json.dumps(_patterns(calibration.keep, program))
            self._work("quantize", path / "float.tflite", path / "pixels.npy", patterns, described, out / self.files[0])
        return {}

    def open(self, folder: Path, threads: int | None = None) -> Runtime:
        return _Served(self.python, folder / self.files[0], threads)

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._work("versions").splitlines()[-1])
        return found

    def _work(self, *arguments: str | Path) -> str:
        command = [str(self.python), litert_worker.__file__, *(str(argument) for argument in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=outside())
        if done.returncode:
            raise ExportError(f"litert cannot hold this network: {_reason(done.stderr)}")
        return done.stdout


class _Served:
    """A model that another process answers for, over a pipe: what it dies of, it dies of alone."""

    def __init__(self, python: Path, model: Path, threads: int | None) -> None:
        command = [str(python), litert_worker.__file__, "serve", str(model), str(threads or 0)]
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, env=outside()
        )

    def __call__(self, pixels: Pixels) -> Logits:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            litert_worker.send(self._process.stdin, pixels)
        logits: Logits | None = litert_worker.receive(self._process.stdout)
        if logits is None:
            self._process.wait()
            self._words.seek(0)
            raise RunError(f"LiteRT stopped: {_reason(self._words.read().decode(errors='replace'))}")
        return logits

    def __del__(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _described(folder: str, metadata: Mapping[str, str]) -> Path:
    path = Path(folder) / "metadata.json"
    path.write_text(json.dumps(dict(metadata)), encoding="utf-8")
    return path


def _patterns(keep: tuple[str, ...], program: torch.export.ExportedProgram) -> list[str]:
    """Regular expressions for the names that LiteRT's operators have: the classes and names of nested modules."""
    found = ["".join(rf"/[^/;]*_{re.escape(part)}" for part in name.split(".")) + r"(?=[/;]|$)" for name in keep]
    answer = next(node for node in program.graph.nodes if node.op == "output").args[0][0]
    if any(path in keep for path, _ in answer.meta.get("nn_module_stack", {}).values()):
        found.append("serving_default_output_0")  # the last operator is named by what it answers
    return [f".*{pattern}.*" for pattern in found]


def _reason(words: str) -> str:
    lines = [line for line in words.strip().splitlines() if re.match(r"\w*(\.\w+)*(Error|Exception)\b", line)]
    return (lines or words.strip().splitlines() or ["it said nothing"])[-1]
