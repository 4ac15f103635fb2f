"""A step that learns from a teacher store, beside the same student on labels alone, and beside the live teacher.

Speed: the trainer's own steps, with data, views, store and loss, in one process and in turn. `cpu_ratio` is the same in
CPU seconds of all threads, which neighbors on the machine disturb less. With --data, images are CIFAR-100's and one
epoch of logits for 6,400 of them is recorded from its given teacher; without, and for all 162 views, both are random.

Memory: fresh processes that train, and then read 2,000 batches more: with labels alone, and from a store of 1.6 GB.
Reading: records of 64 samples at random, beside what the process then holds, for each precision.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import counterpoise
import harness
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.epochs import Batch
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.processes import join
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.trainer import Trainer
from counterpoise.models import cifar
from counterpoise.teachers.store import PRECISIONS, Header, Store, StoreWriter
from counterpoise.teachers.stored import Read

TEACHER = harness.SHARED / "teachers" / "cifar100-wrn_16_2.safetensors"
STUDENTS = ("cifar/resnet8", "cifar/resnet20", "cifar/resnet8x4")
BATCH, VIEWS = 64, 162
LABELS_TARGET, LIVE_TARGET, MEMORY_TARGET = 0.97, 1.9, 300.0


def random_splits(count: int) -> Splits:
    """CIFAR-100 in shape."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 100, (count,), generator=generator)
    classes = tuple(map(str, range(100)))
    return Splits(ArraySet(images, labels, classes), ArraySet(images[:BATCH], labels[:BATCH], classes))


def make_trainer(data: Splits, folder: Path, student: str, teacher: Any = None, **section: Any) -> Trainer:
    """Ours, as a run file would make it: on labels alone, from the store in `section`, or with a live teacher."""
    values: dict[str, Any] = {
        "student": {"model": student},
        "train": {"epochs": 1000, "batch_size": BATCH, "precision": "bf16"},
    }
    if teacher is None and not section:
        values["objective"] = {"cross_entropy": {"weight": 1.0}}
    if section:
        values["teacher"] = section
    run = config.resolve(values)
    with join("auto") as processes:
        run = resolve_auto(run, processes.device)
        parts = assemble(run, processes, teacher=teacher, data=data)
        folder.mkdir(parents=True)
        run_folder = RunFolder(folder)
        run_folder.start(run)
        return Trainer(run, run_folder, parts, processes, show=False)


def write_random(path: Path, trainer: Trainer, slots: int, precision: str = "float16") -> None:
    """A store of random logits for the views of a trainer; every view has the same, which takes no longer to read."""
    loader, parts = trainer.parts.train, trainer.parts
    header = Header.create(
        data=parts.identity["data"],
        teacher="0" * 64,
        kind="complete",
        views=loader.specification,
        count=len(loader.images),
        slots=range(slots),
        shape=[100],
        precision=precision,
        classes=parts.classes,
    )
    logits = 3 * torch.randn(header.count, 100, generator=torch.Generator().manual_seed(0))
    records = header.codec.encode(logits).numpy()
    with StoreWriter.create(path, header) as writer:
        for chunk in writer.missing():
            writer.write_records(chunk, [records[chunk.start : chunk.stop].reshape(-1).data])
        writer.finish()


def batches(trainer: Trainer) -> Iterator[tuple[Batch, Read | None]]:
    """Those of epoch after epoch, as the trainer gets them; the first epoch alone where only that is recorded."""
    stored = trainer.parts.stored
    epoch = 0
    while True:
        yield from trainer._batches(epoch, 0)
        epoch += stored is None or stored.store.header.kind == "complete"


def compare(case: str, sides: dict[str, Trainer], rounds: int, steps: int) -> dict[str, Any]:
    """Images a second of two sides, and their ratio: store first."""
    cpu: dict[str, list[float]] = {name: [] for name in sides}

    def side(name: str, trainer: Trainer) -> Callable[[], None]:
        source = batches(trainer)
        trainer.parts.student.train()

        def run() -> None:
            start = time.process_time()
            for _ in range(steps):
                _, values = trainer.step(*next(source))
                values.tolist()
            cpu[name].append(time.process_time() - start)

        return run

    seconds = harness.interleave({name: side(name, trainer) for name, trainer in sides.items()}, rounds)
    store, other = sides
    return {
        "case": case,
        **{f"{name}_images_per_second": BATCH * steps / statistics.median(seconds[name]) for name in sides},
        "ratio": harness.median_ratio(seconds[other], seconds[store]),
        "cpu_ratio": harness.median_ratio(cpu[other][1:], cpu[store][1:]),
        "rounds": rounds,
        "steps_per_round": steps,
    }


def measure_memory(steps: int, store: Path | None) -> None:
    """In a process of its own: train, read on, and print the most MB held meanwhile (loading the data took more)."""
    with tempfile.TemporaryDirectory() as folder:
        section = {} if store is None else {"store": str(store)}
        trainer = make_trainer(random_splits(50_000), Path(folder, "run"), STUDENTS[0], **section)
        source, most = batches(trainer), 0.0
        for number in range(steps + 2000):
            batch = next(source)
            if number < steps:
                _, values = trainer.step(*batch)
                values.tolist()
            most = max(most, resident())
    print(most)


def measure_reading(address: Path) -> None:
    """In a process of its own: print images a second read at random, and by how many MB the process grew."""
    with Store.open(address) as store:
        header = store.header
        generator = torch.Generator().manual_seed(0)
        before = resident()
        store.logits(torch.zeros(len(header.slots), dtype=torch.int64), torch.tensor(header.slots))  # checked, once
        start = time.perf_counter()
        count = 1000
        for _ in range(count):
            indices = torch.randint(header.count, (BATCH,), generator=generator)
            store.logits(indices, torch.randint(len(header.slots), (BATCH,), generator=generator))
        print(BATCH * count / (time.perf_counter() - start), resident() - before)


def resident() -> float:
    """MB of this process in memory."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * mmap.PAGESIZE / 2**20


def in_process(*arguments: object) -> list[float]:
    """What one of the two above prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> int:
    """Measure."""
    if sys.argv[1:2] == ["memory"]:
        torch.set_num_threads(1)
        measure_memory(int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
        return 0
    if sys.argv[1:2] == ["reading"]:
        torch.set_num_threads(1)
        measure_reading(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", type=Path, help="unpacked CIFAR-100")
    ours, sys.argv[1:] = parser.parse_known_args()
    options = harness.arguments("training from a teacher store: --data FOLDER for CIFAR-100 and its given teacher")
    rounds, steps = (5, 4) if options.quick else (31, 8)
    with tempfile.TemporaryDirectory() as folder:
        cases = run(Path(folder), ours.data, rounds, steps, options.quick)
    targets = [
        {"name": f"{case['case']}: beside labels alone", "value": case["ratio"], "at_least": LABELS_TARGET}
        for case in cases
        if "labels_images_per_second" in case and case["case"].startswith(f"{STUDENTS[0]},")
    ]
    live = next(case for case in cases if "live_images_per_second" in case)
    targets.append({"name": f"{live['case']}: beside live", "value": live["ratio"], "at_least": LIVE_TARGET})
    more = next(case["more_megabytes"] for case in cases if "more_megabytes" in case)
    targets.append({"name": "MB beyond training on labels", "value": more, "at_most": MEMORY_TARGET})
    return harness.report("store", cases, targets, options.json, options.out)


def run(folder: Path, path: Path | None, rounds: int, steps: int, quick: bool) -> list[dict[str, Any]]:
    """All cases; 3 GB of stores in `folder`."""
    cases = []
    data = random_splits(50_000) if path is None else sources.load(config.Data(path=path))
    stores = {"162 views, random logits": folder / "complete"}
    write_random(stores["162 views, random logits"], make_trainer(data, folder / "model", STUDENTS[0]), VIEWS)
    if path is not None and TEACHER.exists():
        chosen = data.train.subset(torch.arange(6400))
        data = Splits(chosen, data.val)
        teacher = {"model": "cifar/wrn_16_2", "checkpoint": str(TEACHER)}
        values = {"teacher": teacher, "student": {"model": STUDENTS[0]}, "train": {"epochs": 1, "precision": "bf16"}}
        start = time.perf_counter()
        recorded = folder / "epochs"
        counterpoise.record(values, out=recorded, views="epochs", data=data)
        speed = len(chosen) / (time.perf_counter() - start)
        cases.append({"case": "recording cifar/wrn_16_2", "images_per_second": speed})
        stores = {"1 epoch of cifar/wrn_16_2": recorded, **stores}
    for name, store in stores.items():
        for student in STUDENTS if "random" not in name or len(stores) == 1 else STUDENTS[:1]:
            if quick and student != STUDENTS[0]:
                continue
            place = folder / f"{student.replace('/', '-')}-{len(cases)}"
            random = "random" in name and path is not None
            images = sources.load(config.Data(path=path)) if random else data
            missing = {} if "random" in name else {"missing": "live", "checkpoint": str(TEACHER)}
            trainers = {
                "store": make_trainer(images, place / "a", student, store=str(store), **missing),
                "labels": make_trainer(images, place / "b", student),
            }
            often = (rounds, steps) if student == STUDENTS[0] else (-(-rounds // 4), steps // 2)
            cases.append(compare(f"{student}, {name}", trainers, *often))
    pair = random_splits(BATCH * 50)
    torch.manual_seed(0)
    trainers = {"live": make_trainer(pair, folder / "live", STUDENTS[2], cifar.create("resnet32x4"))}
    write_random(folder / "pair", trainers["live"], VIEWS)
    trainers = {"store": make_trainer(pair, folder / "from", STUDENTS[2], store=str(folder / "pair")), **trainers}
    cases.append(compare("resnet32x4 -> resnet8x4, random weights", trainers, 3 if quick else 7, 2))
    plain = folder / "complete"
    if path is not None:  # made for other images
        plain = folder / "random"
        write_random(plain, make_trainer(random_splits(50_000), folder / "random-model", STUDENTS[0]), VIEWS)
    trained = 10 if quick else 100
    (alone,), (stored,) = in_process("memory", trained), in_process("memory", trained, plain)
    with Store.open(plain) as store:
        size = store.header.bytes / 1e6
    cases.append(
        {"case": f"memory, a store of {size:,.0f} MB", "labels_megabytes": alone, "store_megabytes": stored}
        | {"more_megabytes": stored - alone}
    )
    cases += reading(folder, 4 if quick else 20)
    return cases


def reading(folder: Path, slots: int) -> list[dict[str, Any]]:
    """Speed and memory of reading 50,000 samples in some views, a case each precision."""
    trainer = make_trainer(random_splits(50_000), folder / "reading", STUDENTS[0])
    found = []
    for precision in PRECISIONS:
        path = folder / f"reading-{precision}"
        write_random(path, trainer, slots, precision)
        speed, grown = in_process("reading", path)
        size = sum(file.stat().st_size for file in (path / "chunks").iterdir()) / 1e6
        case = {"case": f"reading {precision}", "store_megabytes": size, "images_per_second": speed}
        found.append({**case, "more_megabytes": grown})
    return found


if __name__ == "__main__":
    sys.exit(main())
