"""Tars that others made, in the layout of webdataset: read as they are, and what is wrong with them is said."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import ConfigError, DataError
from counterpoise.system import addresses

Files = Iterable[tuple[str, bytes]]


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    written = io.BytesIO()
    image.save(written, kind)
    return written.getvalue()


def write(path: Path, files: Files, mode: Any = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(content), 1.5, "somebody"
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def picture(make_picture: Callable[..., Image.Image]) -> Callable[[int], bytes]:
    return lambda number: encoded(make_picture("circle", number, (24 + number % 3, 20)))


@pytest.fixture
def tars(tmp_path: Path, picture: Callable[[int], bytes]) -> Path:
    """web/{train-0000,train-0001,val-0000}.tar: 6, 6 and 4 samples of 3 classes, as .jpg with .cls."""
    for number, (name, count) in enumerate((("train-0000", 6), ("train-0001", 6), ("val-0000", 4))):
        files = []
        for index in range(count):
            key = f"{'a long name of a folder that makes it ' * 4}/n{number}_{index:04d}"
            files += [(f"{key}.jpg", picture(10 * number + index)), (f"{key}.cls", b"%d\n" % (index % 3))]
        write(tmp_path / "web" / f"{name}.tar", files)
    return tmp_path / "web"


def load(path: Path | str, **options: Any) -> sources.Splits:
    return sources.load(config.Data(path=Path(path), val_fraction=0.3, options=options))


def test_tars_are_read_in_their_order_with_their_labels(tars: Path, picture: Callable[[int], bytes]) -> None:
    train, val = load(tars)
    assert (len(train), len(val), train.classes) == (12, 4, ("0", "1", "2"))
    assert train.labels.tolist() == [0, 1, 2] * 4
    assert [train.file(index) for index in range(12)] == [picture(number) for number in (*range(6), *range(10, 16))]
    assert Path(train.name(7)).name == "n1_0001.jpg"
    assert train.extents.tolist() == [[20, 24 + number % 3] for number in (*range(6), *range(10, 16))]
    assert train.blocks.tolist() == [6, 6]  # type: ignore[union-attr]


def test_the_index_is_made_once_and_anew_where_a_tar_has_changed(
    tars: Path, picture: Callable[[int], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    load(tars)
    assert "web: 3 tar files are looked through once, for an index" in capsys.readouterr().err
    load(tars)
    assert not capsys.readouterr().err
    write(tars / "train-0001.tar", [("x.jpg", picture(3)), ("x.cls", b"7")])
    train = load(tars).train
    assert "web: 3 tar files are" in capsys.readouterr().err
    assert (len(train), len(train.classes)) == (7, 8)
    assert train.file(6) == picture(3)


def test_an_index_goes_where_it_may_be_written(tars: Path, tmp_path: Path) -> None:
    load(tars, cache=tmp_path / "cache")
    assert not list(tars.glob(".*"))
    assert list((tmp_path / "cache").glob("tars-*/pack.json"))


def test_labels_in_json_are_numbers_or_names(tmp_path: Path, picture: Callable[[int], bytes]) -> None:
    for field, values in (("label", ["cat", "ant", "cat", None]), ("target", [2, 0, 2, -1])):
        files = []
        for number, value in enumerate(values * 2):
            text = json.dumps({"caption": "x", field: value}).encode()
            files += [(f"{number}.json", text), (f"{number}.PNG", picture(number))]
        write(tmp_path / field / "0.tar", files)
        write(tmp_path / field / "val" / "0.tar", files[:6])
    named = load(tmp_path / "label", train="0.tar", val="val/*.tar")
    assert (named.train.classes, named.train.labels.tolist()) == (("ant", "cat"), [1, 0, 1, -1] * 2)
    numbered = load(tmp_path / "target", train="0.tar", val="val/*.tar", label="target")
    assert (numbered.train.classes, numbered.val.labels.tolist()) == (("0", "1", "2"), [2, 0, 2])
    (tmp_path / "classes.txt").write_text("bee\ncat\nant\n")
    both = {"train": "0.tar", "val": "val/*.tar", "classes": tmp_path / "classes.txt"}
    assert load(tmp_path / "label", **both).train.labels.tolist() == [1, 2, 1, -1] * 2
    assert load(tmp_path / "target", **both).train.classes == ("bee", "cat", "ant")


@pytest.mark.parametrize(
    ("texts", "classes", "labels"),
    [
        (["01", "2", "-1", ""], ("0", "1", "2"), [1, 2, -1, -1]),
        ([" cat", "cat", "dog\n", "-1"], ("cat", "dog"), [0, 0, 1, -1]),
        (["NA", "cat", "007", " "], ("7", "NA", "cat"), [1, 2, 0, -1]),
    ],
)
def test_a_label_is_the_same_in_cls_and_json(
    tmp_path: Path, picture: Callable[[int], bytes], texts: list[str], classes: tuple[str, ...], labels: list[int]
) -> None:
    for ending in ("cls", "json"):
        for part, known in (("train", texts), ("val", texts[:2] * 2)):
            files = []
            for number, text in enumerate(known):
                content = json.dumps({"label": text}) if ending == "json" else text
                files += [(f"{number}.jpg", picture(number)), (f"{number}.{ending}", content.encode())]
            write(tmp_path / ending / f"{part}.tar", files)
        train = load(tmp_path / ending).train
        assert (train.classes, train.labels.tolist()) == (classes, labels)
        assert any(note.startswith("'NA' of the tars of") for note in train.notes) == ("NA" in classes)


def test_an_index_of_names_as_they_were_is_made_anew(tmp_path: Path, picture: Callable[[int], bytes]) -> None:
    files = []
    for number in range(8):
        files += [
            (f"{number}.jpg", picture(number)),
            (f"{number}.json", b'{"label": "%s"}' % (b"cat", b"dog")[number % 2]),
        ]
    write(tmp_path / "0.tar", files)
    assert load(tmp_path).train.classes == ("cat", "dog")
    (index,) = tmp_path.glob(".*/pack.json")
    index.write_text(index.read_text().replace('"cat"', '" cat"'))
    assert load(tmp_path).train.classes == ("cat", "dog")


def test_parts_are_what_patterns_say(tars: Path) -> None:
    train, val = load(tars, train="train-{0000..0001}.tar", val="{val,test}-*.tar")
    assert (len(train), len(val)) == (12, 4)
    train, val = load(tars, train="train-*.tar")
    assert (len(train), len(val)) == (8, 4)
    with pytest.raises(ConfigError, match=r"data\.options\.val is test-\*\.tar, and .* has no such tar"):
        load(tars, train="train-*.tar", val="test-*.tar")
    with pytest.raises(ConfigError, match="more than 100,000 names"):
        load(tars, train="{000000..999999}.tar")
    (tars / "train-0001.tar").rename(tars / "more.tar")
    with pytest.raises(DataError, match=r"others of none, such as more\.tar"):
        load(tars)


def test_scenes_in_tars_need_a_list_of_classes(tmp_path: Path, picture: Callable[[int], bytes]) -> None:
    files = []
    for number in range(4):
        mask = np.full((20, 24 + number % 3), number % 2, dtype=np.uint8)
        mask[3] = 9
        files += [(f"{number}.jpg", picture(number)), (f"{number}.mask.png", encoded(Image.fromarray(mask), "PNG"))]
    write(tmp_path / "web" / "0.tar", files)
    with pytest.raises(ConfigError, match="hold masks: say what is in them"):
        load(tmp_path / "web")
    (tmp_path / "classes.txt").write_text("ground\nthing\n")
    train, val = load(tmp_path / "web", classes=tmp_path / "classes.txt", ignore=9)
    assert (len(train), len(val), train.classes) == (3, 1, ("ground", "thing"))
    assert {value for index in range(3) for value in train.read_mask(index).unique().tolist()} <= {0, 1, 255}
    write(tmp_path / "web" / "0.tar", files[:-1])
    with pytest.raises(DataError, match=r"0\.tar: sample '3' has no mask, unlike those before it"):
        load(tmp_path / "web", classes=tmp_path / "classes.txt")


def no_labels(tars: Path, jpg: bytes) -> None:
    for name in ("train-0000", "train-0001", "val-0000"):
        write(tars / f"{name}.tar", [("a.jpg", jpg), ("a.txt", b"a cat"), ("b.jpg", jpg)])


def twice(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg), ("b.jpg", jpg), ("a.jpg", jpg)])


def twice_in_a_row(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg), ("a.jpg", jpg)])


def two_images(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.left.jpg", jpg), ("a.right.jpg", jpg)])


def no_image(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.cls", b"0")])


def cut_in_a_file(tars: Path, jpg: bytes) -> None:
    file = tars / "val-0000.tar"
    file.write_bytes(file.read_bytes()[:3000])


def cut_between(tars: Path, jpg: bytes) -> None:
    file = tars / "val-0000.tar"
    file.write_bytes(file.read_bytes().rstrip(b"\0").ljust(0) + bytes(512 - len(file.read_bytes().rstrip(b"\0")) % 512))


def compressed(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg)], "w:gz")


def no_tar(tars: Path, jpg: bytes) -> None:
    (tars / "val-0000.tar").write_bytes(jpg * 9)


def wrong_label(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg), ("a.json", b'{"label": [1, 2]}')])


def no_json(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg), ("a.json", b'{"label"')])


def endless_labels(tars: Path, jpg: bytes) -> None:
    write(tars / "val-0000.tar", [("a.jpg", jpg), ("a.cls", b"99999999999")])


def sparse(tars: Path, jpg: bytes) -> None:
    with tarfile.open(tars / "val-0000.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size, info.pax_headers = 3, {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,3"}
        tar.addfile(info, io.BytesIO(b"abc"))


def endless_header(tars: Path, jpg: bytes) -> None:
    """A name that says that it has 2**45 letters: more than there is memory."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**45
    (tars / "val-0000.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_labels, r"train of .*web has no labels: no sample has a \.cls"),
        (twice, r"val-0000\.tar holds two samples of the key 'a'"),
        (twice_in_a_row, r"val-0000\.tar holds two samples of the key 'a'"),
        (two_images, r"sample 'a' has 2 images \(left\.jpg, right\.jpg\)"),
        (no_image, r"sample 'a' has no images \(cls\)"),
        (cut_in_a_file, r"val-0000\.tar (is no plain tar, or is damaged|was cut short)"),
        (cut_between, r"val-0000\.tar was cut short: it has no end"),
        (compressed, r"val-0000\.tar is no plain tar"),
        (no_tar, r"val-0000\.tar is no plain tar"),
        (wrong_label, r"sample 'a': its label is \[1, 2\]"),
        (no_json, r"sample 'a': its \.json is damaged"),
        (endless_labels, r"Labels go up to 99,999,999,999"),
        (sparse, r"a\.jpg is sparse"),
        (endless_header, r"val-0000\.tar (is no plain tar, or is damaged|was cut short)"),
    ],
)
def test_what_is_wrong_with_a_tar_is_said(
    tars: Path, picture: Callable[[int], bytes], damage: Callable[[Path, bytes], None], said: str
) -> None:
    damage(tars, picture(0))
    with pytest.raises(DataError, match=said):
        load(tars)


def test_labels_beyond_the_list_of_classes_are_named(tars: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"4 labels of train .*beyond the 2 classes.*the first is 2, of .*n0_0002\.jpg"):
        load(tars, classes=tmp_path / "classes.txt")
    for text, said in (("ant\nant\n", "the class 'ant' twice"), ("ant\n\nbee", "an empty line")):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=said):
            load(tars, classes=tmp_path / "classes.txt")
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        load(tars, classes=tmp_path / "none.txt")


def test_tars_without_labels_are_for_distilling(tars: Path, picture: Callable[[int], bytes]) -> None:
    assert not load(tars, labeled=False).train.classes
    no_labels(tars, picture(0))
    train, val = load(tars, labeled=False)
    assert (train.classes, train.labels.unique().tolist(), len(val)) == ((), [-1], 2)


def test_options_of_tars_are_refused_for_packs(tars: Path, tmp_path: Path) -> None:
    counterpoise.pack(tars, out=tmp_path / "pack")
    with pytest.raises(ConfigError, match=r"data\.options\.label is for tars that others made"):
        load(tmp_path / "pack", label="cls")
    assert load(tmp_path / "pack").train.fingerprint() == load(tars).train.fingerprint()


def test_a_folder_of_class_folders_with_a_tar_is_none_of_tars(image_folder: Path) -> None:
    write(image_folder / "backup.tar", [("a.jpg", b"")])
    assert load(image_folder).train.classes == ("circle", "square", "stripes")


def test_tars_at_an_address_are_looked_through_once_and_at_once(
    tars: Path, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "PAUSE", 0.001)
    server = serve(tars.parent)
    options = {"train": "train-{0000..0001}.tar", "val": "val-0000.tar", "cache": tmp_path / "cache"}
    together = threading.Barrier(3, timeout=20)  # passed when all three tars are being read

    def wait_for_others(path: str, count: int) -> None:
        if count == 2:  # the first asks for the size
            together.wait()

    server.fault = wait_for_others
    there = load(f"{server.address}/web", **options)
    here = load(tars)
    for one, other in zip(here, there, strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert all(torch.equal(one.read(index), other.read(index)) for index in range(len(one)))
    assert not together.broken
    server.asked.clear()
    server.fault = lambda path, count: None
    load(f"{server.address}/web", **options).train.read(3)
    assert not [path for path, bytes_ in server.asked if bytes_]  # sizes alone
    with pytest.raises(DataError, match=r"name them: --data\.options\.train"):
        load(f"{server.address}/web", cache=tmp_path / "cache")
