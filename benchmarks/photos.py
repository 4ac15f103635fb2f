"""From JPEG files to views of 224 x 224: random resized crops, mirrored, as uint8, beside what others train with.

CPU time of one process with one thread, in turn, and images a second of whole loaders with two workers. Real photos
come from ../shared/data where that is there; generated ones have the spectrum of photos. Peers that are not installed
are left out: pip install webdataset litdata. By hand: simplejpeg, a slice, torch's resize, nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import counterpoise
import harness
from counterpoise import config, decoding
from counterpoise.data import images as pictures
from counterpoise.data import sources, views
from counterpoise.data.loader import TrainLoader
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
from torchvision.io import decode_jpeg, read_file  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

EDGE, BATCH = 224, 32
PIL, HAND, EXACT, SCALED, PACK = "PIL, torchvision v2", "by hand", "exact", "scaled", "pack, shorter side 256"
DRAFT, EARLIER = "PIL draft, torchvision v2", "exact, as before simplejpeg"
EQUAL = (PIL, "torchvision decode_jpeg", "timm", "webdataset", "LitData")  # that decode whole files
SETS = {"500x375": (500, 375, 64), "1280x960": (1280, 960, 32), "12 MP": (4000, 3000, 16)}

LEFT_OUT: set[str] = set()

Side = Callable[[], Any]


class Photos(NamedTuple):
    """A data folder with two classes in its train part, the files of that, and where its tars and chunks go."""

    folder: Path
    files: list[Path]
    scratch: Path


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Noise with the spectrum of photos, amplitude 1 / frequency, its colors alike, and the edges of a few things."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    gray, blue, red = (
        np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.2, s=(height, width))
        for _ in range(3)
    )
    planes = [gray + 0.3 * red, gray, gray + 0.3 * blue]
    pixels = np.stack([128 + 50 * plane / plane.std() for plane in planes], -1)
    for _ in range(8):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + height // 4, left : left + width // 5] += rng.normal(0, 40, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def generated(folder: Path, width: int, height: int, count: int) -> None:
    for number in range(count):
        photograph(width, height, number).save(folder / f"{number:04d}.jpg", quality=90)


def real(folder: Path, count: int) -> bool:
    """Some of the photos of ../shared/data, where that is there."""
    if not (harness.SHARED / "unpack.py").exists():
        return False
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, harness.SHARED / "unpack.py", "photos", f"{scratch}/photos"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for file in sorted(Path(scratch, "photos").rglob("*.jpg"))[:: max(1, 200 // count)][:count]:
            file.rename(folder / file.name)
    return True


def batch_size(count: int) -> int:
    """As many as 32 that leave no smaller batch, which some loaders would drop."""
    return next(size for size in range(BATCH, 0, -1) if count % size == 0)


def augmentation() -> Any:
    return v2.Compose([v2.RandomResizedCrop(EDGE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])


class PILFiles(Dataset):
    """The thirty lines that everybody writes."""

    def __init__(self, photos: Photos, draft: bool) -> None:
        self.files, self.draft, self.augment = photos.files, draft, augmentation()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[index]) as image:
            if self.draft:
                image.draft("RGB", (2 * EDGE, 2 * EDGE))
            return self.augment(image.convert("RGB")), 0


class TensorFiles(PILFiles):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        augment = v2.Compose(self.augment.transforms[:2])
        return augment(decode_jpeg(read_file(str(self.files[index])), mode="RGB")), 0


class EarlierFiles(PILFiles):
    """What this program did before: Pillow, planes of all pixels, then the crop."""

    plan = views.ViewPlan(0, 1, EDGE, EDGE, "resized", 0, (0.08, 1.0), (3 / 4, 4 / 3), True, 0, 0, 0, 0)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = pictures.to_tensor(decoding.read(self.files[index].read_bytes()))
        words = views.crop_words(self.plan, random.randrange(1000), torch.tensor([index]))[0]
        top, left, height, width, _ = views.part(self.plan, words, *pixels.shape[1:])
        view = v2.functional.resized_crop(pixels, top, left, height, width, [EDGE, EDGE], antialias=True)
        return view.flip(2) if random.random() < 0.5 else view, 0


class HandFiles(PILFiles):
    """The limit: what cannot be left out."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = simplejpeg.decode_jpeg(self.files[index].read_bytes(), fastdct=False, fastupsample=False)
        height, width = pixels.shape[:2]
        area, aspect = height * width * random.uniform(0.08, 1), random.uniform(3 / 4, 4 / 3)
        down = min(height, max(1, round((area / aspect) ** 0.5)))
        across = min(width, max(1, round((area * aspect) ** 0.5)))
        top, left = random.randint(0, height - down), random.randint(0, width - across)
        part = torch.from_numpy(pixels[top : top + down, left : left + across]).permute(2, 0, 1)[None]
        view = torch.nn.functional.interpolate(part, (EDGE, EDGE), mode="bilinear", antialias=True)[0]
        return view.flip(2) if random.random() < 0.5 else view, 0


def batches(dataset: Any, workers: int, **options: Any) -> Any:
    size = batch_size(len(dataset))
    return DataLoader(dataset, size, num_workers=workers, persistent_workers=workers > 0, **options)


def epochs(loader: TrainLoader) -> Iterator[Any]:
    """An epoch of ours whenever it is asked for, each with views of its own."""
    epoch = 0
    while True:
        yield list(loader.epoch(epoch))
        epoch += 1


def ours(folder: Path, workers: int, decode: Any = "exact") -> Side:
    images = sources.load(config.Data(path=folder)).train
    shown = config.Views(crop="resized", decode=decode)
    size = batch_size(len(images))
    loader = TrainLoader(images, shown, num_classes=2, batch_size=size, seed=0, size=EDGE, workers=workers)
    running = epochs(loader)
    return lambda: next(running)


def packed(photos: Photos) -> Path:
    out = photos.scratch / "pack"
    if not out.exists():
        counterpoise.pack(photos.folder, out=out, shorter=256)
    return out


def timm_loader(photos: Photos, workers: int) -> Any:
    """timm's own, which also normalizes, as it cannot do without."""
    from timm.data import ImageDataset, create_loader

    return create_loader(
        ImageDataset(str(photos.folder / "train")),
        input_size=(3, EDGE, EDGE),
        batch_size=batch_size(len(photos.files)),
        is_training=True,
        color_jitter=0,
        interpolation="bilinear",
        num_workers=workers,
        device=torch.device("cpu"),
        pin_memory=False,
        persistent_workers=workers > 0,
    )


def webdataset_loader(photos: Photos, workers: int) -> Any:
    import webdataset

    shards = [photos.scratch / f"{part}.tar" for part in range(2)]
    for part, shard in enumerate(shards):
        if not shard.exists():
            with webdataset.TarWriter(str(shard)) as writer:
                for number, file in enumerate(photos.files[part::2]):
                    writer.write({"__key__": f"{part}{number:05d}", "jpg": file.read_bytes(), "cls": "0"})
    augment = augmentation()
    data = webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=2)
    data = (
        data.shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(augment, int)
        .batched(batch_size(len(photos.files)))
    )
    return DataLoader(data, None, num_workers=workers, persistent_workers=workers > 0)


def litdata_loader(photos: Photos, workers: int) -> Any:
    import litdata

    out = photos.scratch / "litdata"
    if not out.exists():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            litdata.optimize(
                fn=_content, inputs=[str(file) for file in photos.files], output_dir=str(out), num_workers=1,
                chunk_bytes="64MB",
            )  # fmt: skip

    data = litdata.StreamingDataset(str(out), shuffle=True, transform=FromBytes())
    size = batch_size(len(photos.files))
    return litdata.StreamingDataLoader(data, batch_size=size, num_workers=workers, persistent_workers=workers > 0)


class FromBytes:
    def __init__(self) -> None:
        self.augment = augmentation()

    def __call__(self, content: bytes) -> tuple[torch.Tensor, int]:
        return self.augment(Image.open(io.BytesIO(content)).convert("RGB")), 0


def _content(file: str) -> bytes:
    return Path(file).read_bytes()


def peers(photos: Photos) -> dict[str, Callable[[int], Any]]:
    """Loaders by name, for a number of workers."""
    return {
        PIL: lambda workers: batches(PILFiles(photos, False), workers, shuffle=True),
        DRAFT: lambda workers: batches(PILFiles(photos, True), workers, shuffle=True),
        "torchvision decode_jpeg": lambda workers: batches(TensorFiles(photos, False), workers, shuffle=True),
        "timm": lambda workers: timm_loader(photos, workers),
        "webdataset": lambda workers: webdataset_loader(photos, workers),
        "LitData": lambda workers: litdata_loader(photos, workers),
        EARLIER: lambda workers: batches(EarlierFiles(photos, False), workers, shuffle=True),
        HAND: lambda workers: batches(HandFiles(photos, False), workers, shuffle=True),
    }


def sides(photos: Photos, workers: int) -> dict[str, Side]:
    """An epoch of each; peers that do not run here are left out, and said."""
    found: dict[str, Side] = {
        EXACT: ours(photos.folder, workers),
        SCALED: ours(photos.folder, workers, "scaled"),
        PACK: ours(packed(photos), workers),
    }
    for name, make in peers(photos).items():
        try:
            loader = make(workers)
            for _ in loader:
                pass
        except Exception as error:
            if name not in LEFT_OUT:
                print(f"{name} is left out: {(str(error).splitlines() or [''])[0]}", file=sys.stderr)
            LEFT_OUT.add(name)
            continue
        found[name] = lambda loader=loader: [None for _ in loader]
    return found


def measured(photos: Photos, workers: int, rounds: int) -> dict[str, list[float]]:
    """Seconds an image of each side, in turn: of CPU where this process does it all."""
    everything = sides(photos, workers)
    clock = time.perf_counter if workers else time.process_time
    seconds = harness.interleave(everything, rounds, clock=clock)
    everything.clear()
    gc.collect()
    return {name: [second / len(photos.files) for second in taken] for name, taken in seconds.items()}


def rows(photos: str, kind: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "case": photos,
            "kind": kind,
            "side": name,
            "ms_an_image": 1e3 * statistics.median(taken),
            "images_per_second": 1 / statistics.median(taken),
            "times_pil": harness.median_ratio(seconds[PIL], taken),
        }
        for name, taken in seconds.items()
    ]


def targets(seconds: dict[str, dict[str, list[float]]], loaders: dict[str, dict[str, list[float]]]) -> list[Any]:
    small, large = seconds["500x375"], seconds["12 MP"]

    def times(taken: dict[str, list[float]], slow: str, fast: str) -> float:
        return harness.median_ratio(taken[slow], taken[fast])

    found = [
        {"name": "exact beside PIL, 500x375", "value": times(small, PIL, EXACT), "at_least": 1.6},
        {"name": "exact beside by hand, 500x375", "value": times(small, HAND, EXACT), "at_least": 0.7},
        {"name": "scaled beside exact, 12 MP", "value": times(large, EXACT, SCALED), "at_least": 6.0},
        {"name": f"scaled beside {EARLIER}, 12 MP", "value": times(large, EARLIER, SCALED), "at_least": 6.0},
        {"name": "scaled beside PIL with draft, 12 MP", "value": times(large, DRAFT, SCALED), "at_least": 1.0},
        {"name": "pack beside PIL, 500x375", "value": times(small, PIL, PACK), "at_least": 2.5},
    ]
    for kind, sets in (("one process", seconds), ("2 workers", loaders)):
        for name, taken in sets.items():
            value = min(times(taken, peer, EXACT) for peer in EQUAL if peer in taken)
            found.append({"name": f"exact beside the quickest peer, {name}, {kind}", "value": value, "at_least": 1.0})
    return found


def made(work: Path, name: str, quick: bool) -> Photos | None:
    files = work / "files"
    files.mkdir(parents=True)
    if name == "real":
        if not real(files, 40 if quick else 100):
            return None
    else:
        width, height, count = SETS[name]
        generated(files, width, height, max(4, count // 4) if quick else count)
    for number, file in enumerate(sorted(files.iterdir())):
        for half in ("train", "val")[: 1 + (number < 2)]:
            folder = work / "data" / half / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
    return Photos(work / "data", sorted((work / "data" / "train").rglob("*.jpg")), work)


def main() -> int:
    given = harness.arguments(__doc__ or "", threads=1)
    random.seed(0)
    torch.manual_seed(0)
    cases: list[dict[str, Any]] = []
    alone: dict[str, dict[str, list[float]]] = {}
    loaders: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = f"{scratch}/litdata"
        for name in ("real", *SETS):
            photos = made(Path(scratch, name.replace(" ", "")), name, given.quick)
            if photos is None:
                continue
            rounds = 3 if given.quick or name == "12 MP" else 7
            alone[name] = measured(photos, 0, rounds)
            cases += rows(name, "CPU, one process", alone[name])
            if not given.quick:
                loaders[name] = measured(photos, 2, 3)
                cases += rows(name, "wall, 2 workers", loaders[name])
    return harness.report("photos", cases, targets(alone, loaders), given.json, given.out)


if __name__ == "__main__":
    sys.exit(main())
