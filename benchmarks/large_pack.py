"""What it takes to open a pack of 100 million images and to begin an epoch of it.

The pack has an index and no pictures: its shards are files without bytes, as are the names that its images had. Opened,
identified, looked at and put in order by blocks (its shards) in this process; then comes the plan of the first batch of
an epoch and of one in its middle. Seconds of processor time, and the peak of memory above that of imports; labels are
8 bytes an image of it, mapped from the index.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib.format import open_memmap

import harness
from counterpoise import config
from counterpoise.data import noticing
from counterpoise.data.loader import TrainLoader
from counterpoise.data.order import plan_order
from counterpoise.data.packs import format as layout
from counterpoise.data.sources.shards import load

IMAGES, SHARD, BYTES, NAME = 10**8, 10**4, 15_000, 40
TARGETS = {"seconds": 10.0, "gigabytes": 1.0}
Made = TypeVar("Made")


def write_index(folder: Path, part: str, count: int) -> layout.Part:
    """The index of a part, and shards without bytes."""
    index = folder / layout.INDEX
    index.mkdir(exist_ok=True)
    size = -(-BYTES // 512) * 512 + 512
    labels = open_memmap(index / f"{part}.labels.npy", "w+", np.int64, (count,))
    records = open_memmap(index / f"{part}.images.npy", "w+", layout.RECORD, (count,))
    for begin in range(0, count, 10**6):
        rows = np.arange(begin, min(begin + 10**6, count))
        labels[rows] = rows % 1000
        some = np.zeros(len(rows), layout.RECORD)
        some["offset"], some["length"], some["name_end"] = rows % SHARD * size + 512, BYTES, (rows + 1) * NAME
        some["height"], some["width"] = 256, 340
        records[rows] = some
    del labels, records
    with (index / f"{part}.images.names").open("wb") as file:
        file.truncate(count * NAME)
    shards = []
    for number in range(-(-count // SHARD)):
        samples = min(SHARD, count - number * SHARD)
        shard = layout.Shard(name=f"{part}-{number:06d}.tar", samples=samples, bytes=samples * size + 1024, checksum=0)
        with (folder / shard.name).open("wb") as file:
            file.truncate(shard.bytes)
        shards.append(shard)
    files = {
        name: layout.File(bytes=(index / name).stat().st_size, checksum=layout.file_checksum(index / name))
        for name in layout.index_files(part, False)
    }
    return layout.Part(file=part, shards=shards, index=files)


def peak() -> float:
    """Bytes of memory that this process has held at most."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def main() -> int:
    """Write the index, and measure."""
    options = harness.arguments(__doc__ or "", threads=1)
    count = 10**6 if options.quick else IMAGES
    cases: list[dict[str, Any]] = []

    def timed(name: str, make: Callable[[], Made]) -> Made:
        began = time.process_time()
        made = make()
        cases.append({"case": name, "seconds": time.process_time() - began, "gigabytes": (peak() - before) / 1e9})
        return made

    with tempfile.TemporaryDirectory() as scratch:
        folder, names = Path(scratch), [str(number) for number in range(1000)]
        parts = {part: write_index(folder, part, size) for part, size in (("train", count), ("val", SHARD))}
        layout.write(layout.Pack(classes=names, divided_as=names, parts=parts), folder)
        data = config.Data(path=folder, shuffle="blocks")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak()
        images = timed("opened, without a look at pictures", lambda: load(data)).train
        timed("identified", images.fingerprint)
        timed("sizes and classes", lambda: (images.small_extent(64), images.common_extent, images.per_class()))
        order = timed("order", lambda: plan_order(images, data, 0))
        timed("a look at the order", lambda: noticing.of_order(images, order, data))
        views = config.Views(crop="resized", size=(224, 224), mixup=0.2)
        loader = TrainLoader(
            images, views, num_classes=1000, batch_size=256, seed=0, size=224, workers=0, order=order, drop_last=True
        )
        for epoch, step in ((0, 0), (1, loader.steps_per_epoch // 2)):
            first = 256 * step
            timed(f"plan of step {step:,}", lambda epoch=epoch, first=first: order.at(epoch, first, first + 257))  # type: ignore[misc]
    total = {"seconds": sum(case["seconds"] for case in cases), "gigabytes": max(case["gigabytes"] for case in cases)}
    cases.append({"case": f"all, {count:,} images", **total})
    targets = [{"name": name, "value": total[name], "at_most": most} for name, most in TARGETS.items()]
    return harness.report("large_pack", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
