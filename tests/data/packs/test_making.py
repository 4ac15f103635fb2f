"""Packs as they are written: what is in them, that they go on, and that nothing else is overwritten."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.packs import making, rows
from counterpoise.errors import ConfigError, CorruptImage, DataError

Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., tuple[int, str, str]]


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {info.name: opened.extractfile(info).read() for info in opened}  # type: ignore[union-attr]


def test_a_shard_is_plain_tar_of_the_files_and_their_labels(packed: Path, image_folder: Path) -> None:
    files = sorted((image_folder / "train").rglob("*.*"))
    found: dict[str, bytes] = {}
    for number in range(3):
        found |= members(packed / f"train-{number:06d}.tar")
    images = [content for name, content in found.items() if not name.endswith(".cls")]
    assert images == [file.read_bytes() for file in files]
    assert [found[f"{number:09d}.cls"] for number in range(24)] == [b"0"] * 8 + [b"1"] * 8 + [b"2"] * 8
    assert list(found)[:4] == ["000000000.jpg", "000000000.cls", "000000001.png", "000000001.cls"]


def test_webdataset_reads_a_pack(packed: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    ours = sources.load(config.Data(path=packed)).train
    tars = [str(path) for path in sorted(packed.glob("train-*.tar"))]
    seen = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in seen] == [f"{number:09d}" for number in range(24)]
    assert [sample.get("jpg", sample.get("png")) for sample in seen] == [ours.file(index) for index in range(24)]
    decoded = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg;png", "cls")
    for index, (picture, label) in enumerate(decoded):
        assert np.array_equal(np.asarray(picture.convert("RGB")), ours.read(index).permute(1, 2, 0))
        assert label == ours.labels[index]


def test_shards_are_as_many_or_as_large_as_is_asked(image_folder: Path, tmp_path: Path) -> None:
    counts = {}
    for shards in (None, 2, "3", "20kB", "10 KiB"):
        facts = counterpoise.pack(image_folder, out=tmp_path / str(shards), shards=shards)
        counts[shards] = facts["shards"]
    assert counts[None] == 2
    assert counts[2] == 3
    assert counts["3"] == 5
    assert counts["3"] < counts["20kB"] < counts["10 KiB"] < 36
    for wrong in ("0", "many", "-3", "3.5GB", ""):
        with pytest.raises(ConfigError, match="--shards 256MB"):
            counterpoise.pack(image_folder, out=tmp_path / "wrong", shards=wrong)


def test_a_pack_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    image_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    """Stopped in turn at each call that puts a file in its place."""
    real, out = making.replacing, tmp_path / "stopped"
    stops = 0
    while True:
        left = stops + 1

        def stopping(path: Path) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return real(path)

        for module in (making, rows):
            monkeypatch.setattr(module, "replacing", stopping)
        try:
            facts = counterpoise.pack(image_folder, out=out, shards=3)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 5
    assert facts["shards that were there"] == 5
    assert contents(out) == contents(packed)


def test_a_finished_pack_is_not_written_again(image_folder: Path, packed: Path, contents: Contents) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.glob("*.tar")}
    facts = counterpoise.pack(image_folder, out=packed, shards=3)
    assert facts["shards that were there"] == facts["shards"] == 5
    assert {path: path.stat().st_mtime_ns for path in packed.glob("*.tar")} == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_pack_of_something_else_is_not_overwritten(image_folder: Path, packed: Path, finished: bool) -> None:
    if not finished:
        made = json.loads((packed / "pack.json").read_text())["made_from"]
        (packed / "packing.json").write_text(json.dumps(made))
        (packed / "pack.json").unlink()
    what = "another pack" if finished else "the beginning of another pack"
    with pytest.raises(DataError, match=f"holds {what}: --shards differ"):
        counterpoise.pack(image_folder, out=packed, shards=4)
    (image_folder / "train" / "circle" / "00.jpg").unlink()
    with pytest.raises(DataError, match=f"holds {what}: images and --shorter or --quality differ"):
        counterpoise.pack(image_folder, out=packed, shards=3, shorter=8)


@pytest.mark.parametrize("shorter", [None, 20])
def test_a_pack_of_pictures_that_have_changed_but_not_in_size_is_not_taken_for_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents, shorter: int | None
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "pack"

    def draw(shift: int) -> None:
        for number in range(12):
            part = folder / ("val" if number % 3 == 0 else "train") / "ab"[number % 2]
            part.mkdir(parents=True, exist_ok=True)
            pixels = np.arange(30 * 32 * 3).reshape(30, 32, 3) // 16 + 9 * number + shift
            Image.fromarray((pixels % 256).astype(np.uint8)).save(part / f"{number}.bmp")

    def pack() -> Any:
        return counterpoise.pack(folder, out=out, shards=2, shorter=shorter)

    draw(0)
    facts, before = pack(), contents(out)
    draw(90)
    with pytest.raises(DataError, match=r"holds another pack: images differ, a/\d+\.bmp in what it holds, if not"):
        pack()
    draw(0)
    assert pack()["shards that were there"] == facts["shards"]
    if shorter:  # another version of a library writes other bytes, of the same pixels but for their rounding
        save = Image.Image.save
        monkeypatch.setattr(Image.Image, "save", lambda *a, **k: save(*a, **{**k, "quality": 92}))
        assert pack()["shards that were there"] == facts["shards"]
        monkeypatch.undo()
    assert contents(out) == before

    shutil.rmtree(out)
    written = making._Packing._write

    def stopped(self: Any, name: str, *rest: Any) -> Any:
        if name == "val-000000.tar":
            raise KeyboardInterrupt
        return written(self, name, *rest)

    monkeypatch.setattr(making._Packing, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        pack()
    monkeypatch.undo()
    draw(90)
    with pytest.raises(DataError, match="the beginning of another pack: images differ"):
        pack()
    draw(0)
    pack()
    assert contents(out) == before


def test_a_folder_of_other_things_is_not_written_into(image_folder: Path) -> None:
    with pytest.raises(DataError, match="is no empty folder: it holds shapes"):
        counterpoise.pack(image_folder, out=image_folder.parent)
    for inside in (image_folder, image_folder / "pack"):
        with pytest.raises(ConfigError, match="which would then hold its own pack"):
            counterpoise.pack(image_folder, out=inside)


def test_a_file_that_changes_while_it_is_packed_is_said(image_folder: Path, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        (image_folder / "val" / "circle" / "00.jpg").write_bytes(b"something else")

    with pytest.raises(DataError, match=r"Files of .*val changed while they were packed"):
        making.make(config.Data(path=image_folder), tmp_path / "pack", tell=change)
    assert not (tmp_path / "pack" / "pack.json").exists()


def test_images_are_made_smaller_and_never_larger(image_folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((90, 30, 4), np.uint8)).save(image_folder / "train" / "circle" / "08.png")
    counterpoise.pack(image_folder, out=tmp_path / "pack", shorter=34, quality=80)
    train, _ = sources.load(config.Data(path=tmp_path / "pack"))
    whole, _ = sources.load(config.Data(path=image_folder))
    assert train.classes == whole.classes
    for index in range(len(whole)):
        height, width = whole.extent(index)
        content = train.file(index)
        assert isinstance(content, bytes)
        assert Path(train.name(index)).name == Path(whole.name(index)).name
        if min(height, width) <= 34:
            assert content == Path(whole.name(index)).read_bytes()
            continue
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "JPEG"
            assert min(image.size) == 34
            assert abs(image.width * height - image.height * width) < max(height, width)
            assert train.extent(index) == (image.height, image.width)
        assert tuple(train.read(index).shape) == (3, *train.extent(index))


def test_images_in_random_order_are_the_same_images(image_folder: Path, tmp_path: Path) -> None:
    counterpoise.pack(image_folder, out=tmp_path / "pack", shards=3, shuffle=True)
    train, whole = (sources.load(config.Data(path=path)).train for path in (tmp_path / "pack", image_folder))
    known = {whole.identity(index): int(whole.labels[index]) for index in range(24)}
    assert {train.identity(index): int(train.labels[index]) for index in range(24)} == known
    assert all(len(set(train.labels[first : first + 8].tolist())) > 1 for first in (0, 8, 16))
    counterpoise.pack(tmp_path / "pack", out=tmp_path / "again", shards=2)
    assert sources.load(config.Data(path=tmp_path / "again")).train.fingerprint() == train.fingerprint()
    with pytest.raises(DataError, match="--shuffle differ"):
        counterpoise.pack(image_folder, out=tmp_path / "pack", shards=3)


def test_quality_without_a_size_is_refused(run: Run, image_folder: Path) -> None:
    code, _, said = run("pack", image_folder, "--out", "pack", "--quality", "80")
    assert (code, "give shorter (--shorter 256), too" in said) == (2, True)


def test_a_corrupt_image_keeps_its_place_and_stops_what_must_decode_it(image_folder: Path, tmp_path: Path) -> None:
    broken = image_folder / "train" / "square" / "02.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    counterpoise.pack(image_folder, out=tmp_path / "pack")
    train, _ = sources.load(config.Data(path=tmp_path / "pack"))
    with pytest.raises(CorruptImage, match=r"train-000000\.tar/square/02\.jpg cannot be read"):
        train.read(10)
    with pytest.raises(CorruptImage, match="square/02"):
        counterpoise.pack(image_folder, out=tmp_path / "small", shorter=16)
    skipping = {"data": {"path": image_folder, "on_corrupt": "skip"}}
    counterpoise.pack(skipping, out=tmp_path / "small", shorter=16)
    assert len(sources.load(config.Data(path=tmp_path / "small")).train) == 24


def test_a_file_that_cannot_be_opened_is_named(image_folder: Path, tmp_path: Path) -> None:
    broken = image_folder / "train" / "square" / "02.jpg"
    broken.unlink()
    broken.symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"02\.jpg cannot be packed: No such file"):
        counterpoise.pack(image_folder, out=tmp_path / "pack")


def test_sets_in_memory_and_two_sets_at_once_are_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lies in no image file"):
        counterpoise.pack({"data": {"source": "digits"}}, out=tmp_path / "pack")
    with pytest.raises(ConfigError, match="pack each on its own"):
        counterpoise.pack({"data": {"path": image_folder, "unlabeled": image_folder}}, out=tmp_path / "pack")


def test_the_command_says_what_it_packed(run: Run, image_folder: Path) -> None:
    code, printed, _ = run("pack", image_folder, "--out", "pack", "--json")
    assert code == 0
    assert json.loads(printed) == {
        "pack": "pack", "images": 36, "images of train": 24, "images of val": 12, "classes": 3, "shards": 2,
        "shards that were there": 0, "bytes": sum(file.stat().st_size for file in Path("pack").glob("*.tar")),
    }  # fmt: skip


@pytest.mark.slow
def test_a_pack_that_is_killed_twenty_times_ends_in_the_same_bytes(
    host: Any, image_folder: Path, tmp_path: Path, contents: Contents
) -> None:
    for number in range(40):
        Image.effect_noise((400, 400), number).save(image_folder / "train" / "square" / f"n{number}.png")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["pack", str(image_folder), "--shards", "30", "--shorter", "380", "--out"]
    seconds = host.run([*command, str(whole)])
    kills = 0
    while kills < 20:
        was_killed = host.kill_within([*command, str(killed)], 0.6 * seconds)
        kills += was_killed and killed.exists()
        if not was_killed:  # it came to its end: from the beginning
            assert contents(killed) == contents(whole)
            shutil.rmtree(killed)
    host.run([*command, str(killed)])
    assert contents(killed) == contents(whole)
