"""What can be measured: student folders, exports of ours, and ONNX files of someone else's."""

from __future__ import annotations

import inspect
import math
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise.deploy.base import Format
from counterpoise.errors import ConfigError, MissingExtraError, UnfitFileError
from counterpoise.system.files import named, regular
from counterpoise.system.measurements import HASHES, SIZES, hashes_of

if TYPE_CHECKING:
    from counterpoise.engine.student_epochs import Epoch

PYTORCH = "pytorch"
"""The runtime of a student folder."""
EDGE = 2**15
"""The most pixels of an edge, and pictures at once, that are measured: more are a damaged file's."""
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "FLOAT16": "float16"}
USUAL_SIZE = (224, 224)
"""Height and width of the picture for a network that takes any and of which nothing else is known."""


@dataclass(frozen=True)
class Subject:
    """One thing that a runtime can open.

    Attributes:
        name: what a person calls it.
        runtime: pytorch, or the name of a format.
        source: Python that defines `load(path, threads)`, which imports the runtime within itself and returns a
            function of pixels, uint8 [N, channels, H, W].
        size: height and width of these.
        batch: how many pictures at once, where it takes no other number.
        files: all that has to be shipped.
        versions: of the runtime's packages.
        python: the interpreter that has its runtime.
        parameters, multiply_adds: of one picture; None where they are not known.
        channels: of the pictures.
        window: whether a picture is answered window by window: size, time and multiply-adds are those of a window.
    """

    name: str
    runtime: str
    precision: str
    path: Path
    source: str
    size: tuple[int, int]
    files: tuple[Path, ...]
    batch: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    python: Path = Path(sys.executable)
    parameters: int | None = None
    multiply_adds: int | None = None
    channels: int = 3
    window: bool = False

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    def _hashes(self) -> dict[str, str]:
        """What tells it from others; not what a student's folder says of it, which a promise changes."""
        from counterpoise.models import folder

        root = self.path if self.runtime == PYTORCH else self.path.parent
        return hashes_of(root, [file for file in self.files if file.name != folder.DESCRIPTION])

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "versions": dict(self.versions),
            "precision": self.precision,
            "size": list(self.size),
            "bytes": self.bytes,
            SIZES: {file.name: file.stat().st_size for file in self.files},
            HASHES: self._hashes(),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            **({"window": True} if self.window else {}),
        }


def student(
    path: Path, size: tuple[int, int] | None = None, model: str | None = None, epoch: Epoch | None = None
) -> Subject:
    """A student folder or a run, to be run by PyTorch. model: its network, where that is code: file.py:function.

    epoch: of a run, the student of that epoch; default: the one that ships.

    Raises ModelError where there is none; ConfigError where it takes pictures of any size and none is given.
    """
    import torch

    from counterpoise.deploy.measuring import counting
    from counterpoise.engine.student import load_student
    from counterpoise.models import folder

    directory = folder.find(path)
    network = load_student(directory, model=model, epoch=epoch)
    own = network.input_size
    if size is None and own is None:
        raise ConfigError(f"{path} takes pictures of any size: say of which to measure it, such as --size 224 224.")
    if size is not None and own is not None and size != (own, own):
        raise ConfigError(f"{path} takes pictures of {own} x {own}, got --size {size[0]} {size[1]}.")
    chosen = size or (own or 0, own or 0)
    return Subject(
        name=str(path) if epoch is None else f"{path} ({epoch} epoch)",
        runtime=PYTORCH,
        precision="float32",
        path=directory,
        source=f"MODEL, EPOCH = {model!r}, {epoch!r}\n{source_of(_open_student)}",
        size=chosen,
        files=(directory / folder.WEIGHTS, directory / folder.DESCRIPTION),
        versions={"torch": torch.__version__},
        parameters=counting.parameters(network),
        multiply_adds=counting.multiply_adds(network, chosen, network.channels),
        channels=network.channels,
    )


def export(
    name: str,
    format_: Format,
    directory: Path,
    *,
    precision: str,
    size: tuple[int, int],
    batch: int | None = None,
    parameters: int | None = None,
    multiply_adds: int | None = None,
    channels: int = 3,
    window: bool = False,
) -> Subject:
    """What a format wrote into a folder."""
    files = [file for known in format_.files for file in _within(directory / known)]
    return Subject(
        name=name,
        runtime=format_.name,
        precision=precision,
        path=directory / format_.files[0],
        source=source_of(type(format_).load),
        size=size,
        files=tuple(files),
        batch=batch,
        versions=format_.versions(),
        python=format_.python,
        parameters=parameters,
        multiply_adds=multiply_adds,
        channels=channels,
        window=window,
    )


def onnx_file(path: Path, size: tuple[int, int] | None = None) -> Subject:
    """An ONNX file of whatever origin, run with random pixels; nothing is said of its accuracy.

    Raises ConfigError for a file that is not ONNX, or whose input is no batch of pictures.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise MissingExtraError(f"measure {path.name}", "onnx") from None
    try:
        graph = onnx.load(regular(path), load_external_data=False).graph
    except UnfitFileError as error:
        raise ConfigError(f"{error}.") from None
    except Exception as error:  # protobuf's own, which has no name that stays
        raise ConfigError(f"{path} is no ONNX file: {error}.") from None
    stored = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    shape = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    kind = int(inputs[0].type.tensor_type.elem_type) if inputs else 0
    kinds = {int(getattr(onnx.TensorProto, name)): dtype for name, dtype in _DTYPES.items()}
    last = len(shape) == 4 and shape[1] != 3 and shape[3] == 3
    if kind not in kinds or len(shape) != 4 or (shape[3] if last else shape[1]) not in (3, None):
        taken = ", ".join(f"{value.name} {_shape(value)}" for value in inputs) or "no input"
        raise ConfigError(
            f"{path} takes {taken}; what can be measured takes one batch of pictures, [N, 3, H, W] or [N, H, W, 3], as "
            "uint8, float16 or float32."
        )
    fixed = (shape[1], shape[2]) if last else (shape[2], shape[3])
    wanted = size or (fixed[0] or USUAL_SIZE[0], fixed[1] or USUAL_SIZE[1])
    if any(own is not None and own != given for own, given in zip(fixed, wanted, strict=True)):
        raise ConfigError(f"{path} takes pictures of {fixed[0]} x {fixed[1]}, got --size {wanted[0]} {wanted[1]}.")
    if not all(0 < count <= EDGE for count in (*wanted, shape[0] or 1)):
        taken = ", ".join(map(str, shape))
        raise ConfigError(f"{path} takes [{taken}]; batches and edges of pictures are 1 to {EDGE:,}.")
    beside = {entry.value for weight in graph.initializer for entry in weight.external_data if entry.key == "location"}
    try:
        external = [named(path.parent, name) for name in sorted(beside)]
    except OSError as error:
        raise ConfigError(f"The weights of {path} cannot be read: {error}.") from None
    return Subject(
        name=str(path),
        runtime="onnx",
        precision=_precision(graph),
        path=path,
        source=f"DTYPE, LAST = {kinds[kind]!r}, {last}\n{source_of(_open_onnx)}",
        size=wanted,
        files=(path, *external),
        batch=shape[0],
        versions={"onnxruntime": onnxruntime.__version__},
        parameters=sum(math.prod(weight.dims) for weight in graph.initializer),
    )


def source_of(function: Callable[..., Any]) -> str:
    """The source of a function that stands alone, called load."""
    lines = textwrap.dedent(inspect.getsource(function))
    return lines[lines.index("def ") :].replace(f"def {function.__name__}(", "def load(", 1)


def _open_student(path: str, threads: int | None) -> Any:
    import torch

    from counterpoise.engine.student import load_student

    if threads is not None:
        torch.set_num_threads(threads)
    student = load_student(path, model=MODEL, epoch=EPOCH)  # type: ignore[name-defined] # noqa: F821

    def run(pixels: Any) -> Any:
        with torch.inference_mode():
            return student(torch.from_numpy(pixels)).float().numpy()

    return run


def _open_onnx(path: str, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    ready: dict[Any, Any] = {}  # pixels as it takes them, which is no part of its work

    def run(pixels: Any) -> Any:
        if pixels.shape not in ready:
            turned = pixels.transpose(0, 2, 3, 1) if LAST else pixels  # type: ignore[name-defined] # noqa: F821
            scaled = turned if DTYPE == "uint8" else turned / 255.0  # type: ignore[name-defined] # noqa: F821
            ready[pixels.shape] = scaled.astype(DTYPE)  # type: ignore[name-defined] # noqa: F821
        return session.run(None, {name: ready[pixels.shape]})

    return run


def _within(path: Path) -> Iterable[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _shape(value: Any) -> str:
    dims = [str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim]
    return f"[{', '.join(dims)}]"


def _precision(graph: Any) -> str:
    """int8 where it holds quantized layers; else the type of most of its numbers."""
    import onnx

    if any("QuantizeLinear" in node.op_type or node.op_type.startswith("QLinear") for node in graph.node):
        return "int8"
    numbers: Counter[int] = Counter()
    for weight in graph.initializer:
        numbers[weight.data_type] += math.prod(weight.dims)
    return "float16" if numbers[onnx.TensorProto.FLOAT16] > numbers[onnx.TensorProto.FLOAT] else "float32"
