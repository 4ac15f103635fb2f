"""Data that tests of several rooms use: real files, made here or unpacked from the folder beside the repository."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import pickle
import random
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Before torch is there: on some processors MKL rounds otherwise where a teacher is asked about more pictures at once,
# and tests compare bits.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

import numpy as np
import onnx_registry
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from hub_server import Hub
    from playwright.sync_api import Browser, BrowserContext, Page

# Small tensors are faster on one thread, and waiting threads slow down whatever else the machine does. Before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no processes of its own, which import torch again
os.environ["COLUMNS"] = "80"  # whatever terminal the tests are run in; what is wider or narrower says so itself
settings.register_profile("any machine", deadline=None)  # no test looks at a clock
settings.load_profile("any machine")
# A shell that starts the tests in the background has them ignore Ctrl-C, and every process that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SHAPES = ("circle", "square", "stripes")


gc.disable()  # while tests are collected: what is imported stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process waits at the end for the one that has it."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_docs.py"))


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make, and not each time among a million objects of the libraries."""
    gc.freeze()
    gc.set_threshold(1000, 20, 25)
    gc.enable()


def pytest_unconfigure() -> None:
    """Python's own end of things finds all of them."""
    gc.unfreeze()


def pytest_runtest_setup() -> None:
    onnx_registry.keep()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder ../shared/data beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder, {SHARED}, which is not here")
    return SHARED


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in an empty folder; exit code, stdout, stderr."""
    from counterpoise.commands import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def cifar100_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of CIFAR-100, unpacked once: cifar-100-python/{train,test,meta}. Takes a while; for tests marked slow."""
    folder = tmp_path_factory.mktemp("cifar100")
    subprocess.run(
        [sys.executable, str(shared_data / "unpack.py"), "cifar100", str(folder)], check=True, capture_output=True
    )
    return folder


def draw(shape: str, seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A picture (width, height) of a bright shape on a dark, noisy ground; differs by seed."""
    rng = np.random.default_rng([seed, SHAPES.index(shape)])
    width, height = size
    image = Image.fromarray(rng.integers(0, 80, (height, width, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    color = tuple(int(value) for value in rng.integers(150, 256, 3))
    edge = int(min(size) * rng.uniform(0.4, 0.7))
    left, top = int(rng.integers(0, width - edge + 1)), int(rng.integers(0, height - edge + 1))
    box = (left, top, left + edge - 1, top + edge - 1)
    if shape == "circle":
        pen.ellipse(box, fill=color)
    elif shape == "square":
        pen.rectangle(box, fill=color)
    else:
        for row in range(top, top + edge, 4):
            pen.rectangle((left, row, left + edge - 1, row + 1), fill=color)
    return image


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Image.Image]:
    """The function (shape, seed, size=(width, height)) -> PIL image; shapes are circle, square and stripes."""
    return draw


@pytest.fixture(scope="session")
def word_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The function kind -> folder of a tiny network that takes words, clip, siglip or siglip2, with random weights."""
    pytest.importorskip("transformers", reason="needs the extra hf")
    save = runpy.run_path(str(Path(__file__).with_name("word_models.py")))["save"]
    root = tmp_path_factory.mktemp("words")
    return lambda kind: root / kind if (root / kind).exists() else save(kind, root / kind)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """shapes/{train,val}/{circle,square,stripes}/*.{jpg,png}: 8 and 4 pictures a class, of several sizes."""
    root = tmp_path / "shapes"
    for half, count in (("train", 8), ("val", 4)):
        for shape in SHAPES:
            folder = root / half / shape
            folder.mkdir(parents=True)
            for number in range(count):
                size = (40 + 8 * (number % 3), 32 + 4 * (number % 2))
                picture = draw(shape, 100 * (half == "val") + number, size)
                picture.save(folder / f"{number:02d}.{'png' if number % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="session")
def pack_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a pack of `image_folder` is kept once it was made: that takes longer than to copy it."""
    return tmp_path_factory.mktemp("packs") / "shapes"


@pytest.fixture
def packed(image_folder: Path, pack_of_shapes: Path) -> Path:
    """A pack of `image_folder`, beside it, in 3 and 2 shards."""
    import counterpoise

    if not pack_of_shapes.exists():
        counterpoise.pack(image_folder, out=pack_of_shapes, shards=3)
    return Path(shutil.copytree(pack_of_shapes, image_folder.parent / "pack"))


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 and an old numpy wrote it: text and pixels as str, numpy.core as the module."""

    def text(raw: bytes) -> bytes:
        return pickle.BINSTRING + struct.pack("<i", len(raw)) + raw

    def encode(item: Any) -> bytes:
        if isinstance(item, dict):
            pairs = b"".join(encode(key) + encode(inner) for key, inner in item.items())
            return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS
        if isinstance(item, list):
            return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(encode, item)) + pickle.APPENDS
        if isinstance(item, tuple):
            return pickle.MARK + b"".join(map(encode, item)) + pickle.TUPLE
        if isinstance(item, str):
            return text(item.encode())
        if item is None:
            return pickle.NONE
        if isinstance(item, int):
            return pickle.BININT + struct.pack("<i", item)
        assert isinstance(item, np.ndarray)
        assert item.dtype == np.uint8
        empty = (
            b"cnumpy.core.multiarray\n_reconstruct\n" + pickle.MARK + b"cnumpy\nndarray\n" + encode((0,)) + text(b"b")
        )
        kind = b"cnumpy\ndtype\n" + encode(("u1", 0, 1)) + pickle.REDUCE
        kind += encode((3, "|", None, None, None, -1, -1, 0)) + pickle.BUILD
        state = pickle.MARK + encode(1) + encode(item.shape) + kind + encode(0) + text(item.tobytes()) + pickle.TUPLE
        return empty + pickle.TUPLE + pickle.REDUCE + state + pickle.BUILD

    return pickle.PROTO + b"\x02" + encode(value) + pickle.STOP


@pytest.fixture(scope="session")
def to_python2_pickle() -> Callable[[Any], bytes]:
    """The function that pickles as the official CIFAR files are pickled."""
    return python2_pickle


def cifar_record(count: int, classes: int, seed: int) -> dict[str, Any]:
    """`count` pictures of 32x32 in the rows of 'data', class after class; labels 'labels'."""
    labels = [number % classes for number in range(count)]
    pictures = [
        np.asarray(draw(SHAPES[label % 3], 1000 * seed + 10 * number + label, (32, 32)))
        for number, label in enumerate(labels)
    ]
    pixels = np.stack(pictures).transpose(0, 3, 1, 2).reshape(count, 3072)
    return {"data": np.ascontiguousarray(pixels), "labels": labels}


@pytest.fixture
def small_cifar100(tmp_path: Path) -> Path:
    """A folder with cifar-100-python/{train,test,meta}, as the official: 6 fine, 3 coarse classes, 60 + 24 pictures."""
    root = tmp_path / "small-cifar100"
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", 60), ("test", 24))):
        record = cifar_record(count, 6, seed)
        fine = record.pop("labels")
        record |= {"fine_labels": fine, "coarse_labels": [label % 3 for label in fine], "batch_label": name}
        (folder / name).write_bytes(python2_pickle(record))
    meta = {"fine_label_names": ["apple", "beetle", "chair", "dolphin", "elm", "fox"], "coarse_label_names": [*SHAPES]}
    (folder / "meta").write_bytes(python2_pickle(meta))
    return root


@pytest.fixture
def small_cifar10(tmp_path: Path) -> Path:
    """A folder cifar-10-batches-py in the official form: 3 classes, 5 x 12 + 12 pictures."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(python2_pickle(cifar_record(12, 3, seed)))
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": [*SHAPES], "num_vis": 3072}))
    return folder


class Visit(NamedTuple):
    """A page that is open, and what its console complained of so far."""

    page: Page
    errors: list[str]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A real Chromium without a window."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser, and none of {', '.join(names)} is on PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    quiet = ("quic", "background-networking", "component-update", "sync", "gpu")
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{word}" for word in quiet)]
    flags.append("--use-fake-device-for-media-stream")  # a camera that shows a moving pattern to whom it is granted
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


def look_at(context: BrowserContext, where: str | Path) -> Visit:
    """A file or an address; what the console calls an error, a script throws or cannot be loaded is in `errors`."""
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
    page.goto(where.resolve().as_uri() if isinstance(where, Path) else where)
    return Visit(page, errors)


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """Open a file or an address in a context of its own: visit(where, width=1280, height=900, **context options)."""
    contexts = []

    def open_page(where: str | Path, width: int = 1280, height: int = 900, **options: Any) -> Visit:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **options))
        return look_at(contexts[-1], where)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def shown(chromium: Browser) -> Iterator[Callable[[Path], Visit]]:
    """A file, opened once for the tests of a module: each says what width, colors and medium it wants."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    seen: dict[Path, Visit] = {}

    def show(path: Path) -> Visit:
        if path not in seen:
            seen[path] = look_at(context, path)
        return seen[path]

    yield show
    context.close()


class Host:
    """Children that run command lines and may be killed; paths in these are absolute.

    What they import is imported once, by a process that all of a session share, in whatever process tests are run.

    Args:
        folder: what they print is kept here.
        shared: where the others look for that process, too.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.printed, self.log = folder, folder / "stdout.txt", folder / "stderr.txt"
        self.log.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = shared / "host.socket"
        with (shared / "host.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self.connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):  # the first to ask, or the others are through
                program = [sys.executable, Path(__file__).with_name("kill_host.py"), path]
                self.process = subprocess.Popen(program, stdin=subprocess.DEVNULL, cwd=shared)
                while not path.is_socket():
                    assert self.process.poll() is None, "the host has ended"
                    time.sleep(0.01)
                self.connection.connect(str(path))
        self.told = self.connection.makefile("rb", buffering=0)  # nothing read ahead: select sees what is there

    def close(self) -> None:
        """Whoever started the process that all share waits for its end, and so for the others."""
        self.told.close()
        self.connection.close()
        if self.process is not None:
            self.process.wait()

    def _ask(self, **request: Any) -> int:
        """The process id of what is started."""
        self.connection.sendall(json.dumps(request).encode() + b"\n")
        return self._told("started")  # over what a test that failed has not waited for

    def serve(self, path: Path) -> int:
        """The process id of one that serves command lines on a socket until it is killed."""
        pid = self._ask(serve=str(path))
        while not path.exists():
            time.sleep(0.01)
        return pid

    def start(self, arguments: list[str], processes: int = 1) -> int:
        """Its process id."""
        self.before = self.log.stat().st_size
        self.printed.write_bytes(b"")
        return self._ask(arguments=arguments, processes=processes, folder=str(self.folder))

    def wait(self) -> int:
        """The exit status of what was started."""
        return self._told("ended")

    def _told(self, event: str) -> int:
        for line in self.told:
            name, number = line.split()
            if name.decode() == event:
                return int(number)
        raise AssertionError("the host has ended")

    def said(self) -> str:
        """What the last one printed to stderr."""
        return self.log.read_bytes()[self.before :].decode()

    def run(self, arguments: list[str], code: int = 0, processes: int = 1) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        self.start(arguments, processes)
        assert self.wait() == code, self.said()
        return time.perf_counter() - start

    def together(self, arguments: list[str]) -> str:
        """What two processes printed that worked together, as torchrun starts them."""
        self.start(arguments, processes=2)
        assert self.wait() == 0, self.said()
        return self.printed.read_text()

    def kill(self, arguments: list[str], when: Callable[[], bool], processes: int = 1) -> bool:
        """Killed once `when` is so; False where it came to its end before."""
        pid = self.start(arguments, processes)
        while not select.select([self.connection], [], [], 0.001)[0]:
            if when():
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
                break
        status = self.wait()
        assert status in (0, -signal.SIGKILL), self.said()
        return status != 0

    def kill_within(self, arguments: list[str], seconds: float, processes: int = 1) -> bool:
        """Killed at a random moment of so many seconds; False where it came to its end before."""
        end = time.perf_counter() + random.uniform(0.0, seconds)
        return self.kill(arguments, lambda: time.perf_counter() > end, processes)

    def run_and_kill(self, arguments: list[str], seconds: float, kills: int) -> None:
        """Kill what takes `seconds` at random moments, so many times, and then let it end."""
        done = 0
        while done < kills:
            done += self.kill_within(arguments, seconds / max(4, kills / 2))
        self.run(arguments)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all tests: it takes seconds to import what its children need."""
    own = tmp_path_factory.getbasetemp()
    host = Host(tmp_path_factory.mktemp("host"), own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
    yield host
    host.close()


@pytest.fixture(scope="session")
def program(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """How a command line begins that is to be a process of its own: `counterpoise` without its seconds of imports."""
    path = tmp_path_factory.mktemp("program") / "socket"
    server = host.serve(path)
    yield [sys.executable, "-S", str(Path(__file__).with_name("command_host.py")), str(path)]
    os.kill(server, signal.SIGKILL)


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., str]:
    """Run a command line in two processes under torchrun; its stdout, or its stderr where it is to fail (`fails`)."""

    def call(arguments: list[str], fails: bool = False) -> str:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*command, "-m", "counterpoise", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return call


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server in the place of the Hugging Face Hub, where somebody is logged in."""
    from hub_server import Hub

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)  # as HF_ENDPOINT does before it is imported
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
