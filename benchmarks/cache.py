"""What is fetched of a pack at an address, and what a loader waits for it, by how much of the pack the cache holds.

A pack of pictures that cost nearly nothing to decode, behind a server in a process of its own, which sleeps before each
answer and sends no more than so many bytes a second to all together. Two worker processes make batches; after each the
main process sleeps, as if it trained. Sides: `order` fetches ahead and keeps by the known order of the epochs, `last
use` fetches what a batch needs when it is made and keeps what was used last. Each side of a case has a cache of its
own, and all are run in turn. --against SRC puts the sources of another version beside them.
"""

from __future__ import annotations

import argparse
import http.server
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import harness

IMAGES, EDGE, SHARDS, WINDOW, BATCH = 2400, 120, 24, 4, 8
LATENCY, BANDWIDTH, STEP = 0.02, 40e6, 0.01
"""Seconds before an answer, bytes a second of all answers together, seconds of a step."""
EPOCHS = 3
COUNTED = ("requests", "megabytes", "waited", "seconds")


class _Line:
    """What so many bytes a second can be sent through, by all together."""

    def __init__(self) -> None:
        self._free, self._lock = 0.0, threading.Lock()

    def send(self, length: int) -> None:
        with self._lock:
            self._free = max(time.monotonic(), self._free) + length / BANDWIDTH
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    line = _Line()
    counted = {"requests": 0, "bytes": 0}  # noqa: RUF012 - of the one server

    def do_GET(self) -> None:
        if self.path == "/counted":
            self._answer(200, json.dumps(self.counted).encode())
            return
        file = Path.cwd() / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        time.sleep(LATENCY)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with file.open("rb") as opened:
            if found:
                opened.seek(int(found[1]))
            content = opened.read(int(found[2]) + 1 - int(found[1]) if found else -1)
        if file.suffix == ".tar":
            self.counted["requests"] += 1
            self.counted["bytes"] += len(content)
        self._answer(206 if found else 200, content)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for begin in range(0, len(content), 2**16):
            piece = content[begin : begin + 2**16]
            self.line.send(len(piece))
            self.wfile.write(piece)

    def handle(self) -> None:
        with suppress(ConnectionError):  # who asked has ended
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


def _serve(folder: str, ports: Any) -> None:
    os.chdir(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        ports.put(server.server_port)
        server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a folder."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=_serve, args=(str(folder), ports), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=60)}"
    finally:
        process.terminate()
        process.join()


def write_pack(folder: Path, images: int) -> float:
    """A pack in a folder; bytes of its training shards."""
    from counterpoise import config
    from counterpoise.data.packs.making import make

    generator = np.random.default_rng(0)
    for number in range(images):
        place = folder / "photos" / ("val" if number < 4 else "train") / f"{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:05d}.bmp")
    make(config.Data(path=folder / "photos"), folder / "pack", shards=SHARDS, shuffled=True)
    return float(sum(file.stat().st_size for file in (folder / "pack").glob("train-*.tar")))


def run_side(asked: dict[str, Any]) -> dict[str, Any]:
    """The epochs of one side of a case, in this process."""
    import fsspec
    import torch

    from counterpoise import config
    from counterpoise.data import sources
    from counterpoise.data.loader import TrainLoader
    from counterpoise.data.order import plan_order

    torch.set_num_threads(1)
    options = {"cache": asked["cache"], "cache_gb": asked["cache_gb"]}
    window = {"shuffle_window": asked["window"]} if asked["shuffle"] == "blocks" else {}
    data = config.Data(path=Path(f"{asked['address']}/pack"), shuffle=asked["shuffle"], options=options, **window)
    images = sources.load(data).train
    views = config.Views(crop="none", size=(EDGE, EDGE))
    order = plan_order(images, data, 0)
    loader = TrainLoader(
        images, views, num_classes=4, batch_size=BATCH, seed=0, size=EDGE, workers=2, order=order, drop_last=True
    )
    if asked["side"] == "last use":
        loader._reader.dataset.ahead = None  # type: ignore[attr-defined]

    def counted() -> dict[str, int]:
        with fsspec.open(f"{asked['address']}/counted", "rb") as file:
            found: dict[str, int] = json.loads(file.read())
            return found

    epochs, digest = [], 0
    for epoch in range(EPOCHS):
        before, began, waited = counted(), time.perf_counter(), 0.0
        batches = loader.epoch(epoch)
        while True:
            asking = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asking
            if batch is None:
                break
            digest = (31 * digest + int(batch.images.sum()) + int(batch.indices.sum())) % 2**61
            time.sleep(STEP)
        seconds, after = time.perf_counter() - began, counted()
        fetched = (after["bytes"] - before["bytes"]) / 1e6
        epochs.append((after["requests"] - before["requests"], fetched, waited, seconds))
    return {"epochs": epochs, "digest": digest}


def _side(asked: dict[str, Any], sources: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--side", json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Run all sides of all cases in turn, and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--side")
    parser.add_argument("--against", help="a folder of sources of another version")
    parser.add_argument("--rounds", type=int, default=2)
    ours, rest = parser.parse_known_args()
    if ours.side:
        print(json.dumps(run_side(json.loads(ours.side))))
        return 0
    sys.argv[1:] = rest
    options = harness.arguments(__doc__ or "")
    here = str(Path(__file__).resolve().parents[1] / "src")
    sides = {"last use": here, "order": here, **({"other version": ours.against} if ours.against else {})}
    cases, targets = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = write_pack(folder, IMAGES // 4 if options.quick else IMAGES)
        with served(folder) as address:
            # An eighth is less than a window of blocks.
            for shuffle, shares in (("full", (0.25, 0.5, 1.0)), ("blocks", (0.125, 0.25, 0.5, 1.0))):
                for share in shares:
                    found: dict[str, list[Any]] = {side: [] for side in sides}
                    for turn in range(1 if options.quick else ours.rounds):
                        for side, sources in list(sides.items())[:: 1 if turn % 2 == 0 else -1]:
                            with tempfile.TemporaryDirectory() as kept:
                                room = share * size * 1.2 / 1e9  # of which seven eighths are filled
                                asked = {"address": address, "cache": kept, "cache_gb": room, "shuffle": shuffle}
                                found[side].append(_side({**asked, "side": side, "window": WINDOW}, sources))
                    digests = {each["digest"] for runs in found.values() for each in runs}
                    if len(digests) > 1:
                        raise SystemExit(f"{shuffle}, {share}: the sides see other batches")
                    sums = {
                        side: [statistics.mean(sum(e[k] for e in each["epochs"]) for each in runs) for k in range(4)]
                        for side, runs in found.items()
                    }
                    for side, values in sums.items():
                        fetched = {"packs_fetched": values[1] * 1e6 / size}
                        numbers = dict(zip(COUNTED, values, strict=True))
                        cases.append({"case": f"{shuffle} {share:.3g} {side}", **numbers, **fetched})
                    for number, what in ((1, "bytes"), (2, "waiting")):
                        ratio = sums["order"][number] / sums["last use"][number]
                        name = f"{shuffle}, cache of {share:.3g}: {what} of last use"
                        targets.append({"name": name, "value": ratio, "at_most": 1.02 if number == 1 else 1.0})
    return harness.report("cache", cases, targets, options.json, options.out)


if __name__ == "__main__":
    raise SystemExit(main())
