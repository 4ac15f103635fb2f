"""Tables of labels, as people keep them and as they get them wrong."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources import loading
from counterpoise.errors import ConfigError, DataError

Row = Sequence[Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rows(image_folder: Path) -> list[list[str]]:
    """A row a picture: path below `image_folder`, its class, its part, and a patient for every two pictures."""
    found = []
    for file in sorted(image_folder.glob("*/*/*.*")):
        half, shape, name = file.relative_to(image_folder).parts
        found.append([f"{half}/{shape}/{name}", shape, half, f"{half}-{shape}-{int(name[:2]) // 2}"])
    return found


@pytest.fixture
def write(image_folder: Path) -> Callable[..., Path]:
    """Rows as image_folder/NAME, a CSV."""

    def put(rows: Sequence[Row], names: str = "file,label,split,patient", name: str = "labels.csv") -> Path:
        path = image_folder / name
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names.split(",")[: len(rows[0])], *rows])
        return path

    return put


def load(path: Path, **values: Any) -> sources.Splits:
    fields = {key: values.pop(key) for key in [*values] if key in config.Data.model_fields}
    return sources.load(config.Data(path=path, options=values, **fields))


def names(images: sources.ImageSet) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def test_a_table_of_a_folder_is_the_folder(image_folder: Path, rows: list[Row], write: Callable[..., Path]) -> None:
    """The same pictures in the same order, whatever that of the rows: runs on both end in the same bits."""
    folder = load(image_folder)
    for part, other in zip(load(write(rows[::-1])), folder, strict=True):
        assert part.classes == other.classes == ("circle", "square", "stripes")
        assert torch.equal(part.labels, other.labels)
        assert [Path(name).name for name in names(part)] == [Path(name).name for name in names(other)]
        assert torch.equal(part.read(3), other.read(3))
    notes = load(write(rows)).train.notes
    assert notes[:3] == ["pictures: column 'file'", "parts: column 'split'", "labels: column 'label'"]
    assert "column 'patient' is not used" in notes[3]


def test_train_on_a_table_ends_as_on_the_folder(
    image_folder: Path, rows: list[Row], write: Callable[..., Path], tmp_path: Path
) -> None:
    run = {
        "student": {"model": "digits/cnn_4_8", "input_size": 8},
        "train": {"epochs": 1, "batch_size": 12, "precision": "fp32", "device": "cpu"},
        "objective": {"cross_entropy": {"weight": 1.0}},
    }
    table = write(rows)
    for name, path in (("folder", image_folder), ("table", table)):
        counterpoise.train({**run, "data": {"path": str(path), "workers": 0}, "out": tmp_path / name})
    first, second = (counterpoise.load_student(tmp_path / name).state_dict() for name in ("folder", "table"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_fold_of_a_table_is_distilled_and_its_teacher_recorded_once(
    rows: list[list[str]], write: Callable[..., Path], tmp_path: Path
) -> None:
    """One store serves all folds; another table is read as that of the run; groups go into packs."""
    table = write([[row[0], row[1].upper(), row[3]] for row in rows], "file,shape,patient")
    options = {"image": "file", "label": "shape", "group": "patient"}
    data = {"path": str(table), "options": options, "views": {"crop": "none", "flip": False}, "workers": 0}
    run = {
        "data": data,
        "student": {"model": "digits/cnn_4_8", "input_size": 8},
        "train": {"epochs": 1, "batch_size": 12, "precision": "fp32", "device": "cpu"},
        "objective": {"cross_entropy": {"weight": 1.0}},
    }
    counterpoise.train({**run, "out": tmp_path / "teacher"})
    teacher = {"checkpoint": str(tmp_path / "teacher"), "accept_chance": True}
    distil = {**run, "objective": {"balance": {"weight": 1.0}}, "teacher": teacher}
    store = tmp_path / "store"
    counterpoise.record({**distil, "data": {**data, "fold": "1/3"}}, out=store)
    second = {**data, "fold": "2/3"}
    counterpoise.distill({**distil, "data": second, "teacher": {"store": str(store)}, "out": tmp_path / "stored"})
    counterpoise.distill({**distil, "data": second, "out": tmp_path / "live"})
    live, stored = (counterpoise.load_student(tmp_path / name).state_dict() for name in ("live", "stored"))
    assert all(torch.allclose(value, stored[key], atol=1e-3) for key, value in live.items())
    val = load(table, **options, fold="2/3").val
    assert counterpoise.evaluate(tmp_path / "live")["images"] == len(val)
    others = write([[row[0], row[1].upper(), "x"] for row in rows[:20]], "file,shape,other", "others.csv")
    found = counterpoise.evaluate(tmp_path / "live", data=others)
    assert (found["images"], found["trained_on"]) == (20, len({*names(load(table, **options, fold="2/3").train)} & {
        name for part in load(others, label="shape") for name in names(part)}))  # fmt: skip
    told = counterpoise.predict([], student=tmp_path / "live", data=others)
    assert [len(told), told[0]["truth"]] == [20, "CIRCLE"]
    counterpoise.pack({"data": data}, out=tmp_path / "pack")
    for values in ({"val_fraction": 0.3}, {"fold": "2/3"}, {"held_out": 7}):
        packed = load(tmp_path / "pack", **values)
        for part, other in zip(load(table, **options, **values), packed, strict=True):
            assert part.fingerprint() == other.fingerprint()
    with pytest.raises(DataError, match=r"holds another pack: data.options.group differ"):
        counterpoise.pack({"data": {**data, "options": {**options, "group": "file"}}}, out=tmp_path / "pack")
    text = (tmp_path / "pack" / "pack.json").read_text()
    (tmp_path / "pack" / "pack.json").write_text(
        text.replace('"groups": {\n  "train": "', '"groups": {\n  "train": "x')
    )
    with pytest.raises(DataError, match=r"The groups of train of .* are damaged"):
        load(tmp_path / "pack")


def test_paths_may_be_written_in_many_ways(
    image_folder: Path, rows: list[list[str]], write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    expected = load(write(rows)).train.fingerprint()
    changes: list[tuple[Callable[[str], str], dict[str, Any]]] = [
        (lambda path: path.replace("/", "\\"), {}),
        (lambda path: f"./{path}", {}),
        (lambda path: str(image_folder.absolute() / path), {}),
        (lambda path: str(image_folder.absolute() / path), {"root": tmp_path / "empty"}),
    ]
    for change, options in changes:
        path = write([[change(file), *rest] for file, *rest in rows])
        assert load(path, **options).train.fingerprint() == expected
    moved = shutil.move(write(rows), tmp_path / "elsewhere.csv")
    assert load(moved, root=image_folder).train.fingerprint() == expected
    stems = write([[file.rpartition(".")[0], *rest] for file, *rest in rows if file.endswith("png")])
    with pytest.raises(DataError, match=r"no column holds such names.*--data.options.suffix .jpg"):
        load(stems)
    with pytest.raises(DataError, match=r"With an ending they are: --data.options.suffix .png"):
        load(stems, image="file")
    assert len(load(stems, image="file", suffix=".png").train) == 12


def test_labels_that_are_numbers_are_in_natural_order(rows: list[list[str]], write: Callable[..., Path]) -> None:
    numbers = {"circle": "10", "square": "2", "stripes": "1"}
    assert load(write([[row[0], numbers[row[1]], row[2]] for row in rows])).train.classes == ("1", "2", "10")
    floats = write([[row[0], f"{numbers[row[1]]}.0", row[2]] for row in rows])
    assert load(floats).train.classes == ("1", "2", "10")


def test_a_classes_file_names_and_orders(rows: list[list[str]], write: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("stripes\nsquare\ncircle\nrest\n")
    by_name = load(write(rows), classes=file).train
    assert by_name.classes == ("stripes", "square", "circle", "rest")
    numbers = {"circle": "2", "square": "1", "stripes": "0"}
    numbered = write([[row[0], numbers[row[1]], row[2]] for row in rows])
    by_number = load(numbered, classes=file).train
    assert torch.equal(by_number.labels, by_name.labels)
    assert any("holds numbers: 0 is 'stripes'" in note for note in by_number.notes)
    file.write_text("stripes\nsquare\n")
    with pytest.raises(DataError, match=r"'circle' of column 'label' is not among the 2 classes"):
        load(write(rows), classes=file)
    with pytest.raises(DataError, match=r"holds 2, and .* names 2 classes: expected 0 to 1"):
        load(write([[row[0], numbers[row[1]], row[2]] for row in rows]), classes=file)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (
            {"label": "lable"},
            ConfigError,
            "no column 'lable'. Did you mean 'label'? It has: file, label, split, patient",
        ),
        ({"group": "site"}, ConfigError, "data.options.group: "),
        ({"label": "file2"}, ConfigError, "has no column 'file2'"),
        ({"val_split": "exam"}, DataError, "has no split 'exam'"),
        ({"fold": "6/5"}, Exception, "1/5 to 5/5 of five, got '6/5'"),
        ({"fold": "second"}, Exception, "got 'second'"),
        ({"source": "image_folder"}, DataError, "must be a folder for source 'image_folder'"),
        ({"split": "split", "val_split": True}, ConfigError, "got True. Text stands in quotes"),
        ({"encoding": "base64"}, ConfigError, "there is no encoding 'base64'"),
        ({"label": "patient"}, DataError, "Class 'val-circle-0' of column 'patient' is unknown to the training"),
    ],
)
def test_what_is_asked_for_and_not_there_is_said(
    rows: list[Row], write: Callable[..., Path], options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    path = write(rows)
    with pytest.raises(kind) as error:
        load(path, **options)
    assert said in str(error.value)


def test_a_column_is_guessed_where_one_is_possible(rows: list[list[str]], write: Callable[..., Path]) -> None:
    two = write([[*row[:2], row[1].upper(), "x"] for row in rows], "file,shape,kind,note")
    with pytest.raises(DataError, match=r"labels is not clear: shape, kind, note. Say which"):
        load(two)
    assert load(two, label="kind").train.classes == ("CIRCLE", "SQUARE", "STRIPES")
    pictures = write([[row[0], row[0], row[1]] for row in rows], "file,thumb.jpg,shape")
    with pytest.raises(DataError, match=r"no names of columns but a picture"):
        load(pictures)
    pictures = write([[row[0], row[0], row[1]] for row in rows], "file,thumb,shape")
    with pytest.raises(DataError, match="columns file, thumb all hold names of image files"):
        load(pictures)
    assert load(pictures, image="file", label="shape").train.classes == ("circle", "square", "stripes")
    alone = load(write([row[:1] for row in rows], "file")).train
    assert (alone.classes, alone.unlabeled) == ((), len(alone))
    assert load(two, labeled=False).train.classes == ()
    every = write([[row[0], row[0]] for row in rows], "file,id")
    with pytest.raises(DataError, match="another value for each of the 36 labeled pictures"):
        load(every, image="file", label="id")


def test_what_may_be_meant_otherwise_is_said(rows: list[list[str]], write: Callable[..., Path]) -> None:
    odd = [[row[0], row[1].replace("circle", "NA"), row[2].replace("val", "exam")] for row in rows]
    train = load(write(odd, "file,label,fate")).train
    assert train.classes == ("NA", "square", "stripes")
    assert any(note.startswith("column 'fate' is not used: where exam, train are parts") for note in train.notes)
    assert "'NA' of column 'label' is taken for a class: a row without a label is empty, or NaN" in train.notes
    assert len(load(write(odd, "file,label,fate"), split="fate", val_split="exam").val) == 12
    both = load(write(odd, "file,label,fate"), split="fate", val_split="train")
    assert names(both.val) == names(both.train)
    assert both.val.origin.endswith("(which is trained on, too)")
    odd = [[row[0], {"circle": "01", "square": "1"}.get(row[1], "1|01"), row[2] == "val"] for row in rows]
    notes = load(write(odd, "file,label,is_valid"), fold="1/2").train.notes
    assert any(note.startswith("column 'is_valid' is not used: where False, True are parts") for note in notes)
    assert "classes '01' and '1' are one number, and are two" in notes
    measured = write([[row[0], f"{len(row[1]) / 4}"] for row in rows], "file,label")
    assert any("such as 1.5, and each is taken for a class" in note for note in load(measured).train.notes)
    assert any(note.startswith("'1|01' of column 'label' is taken for one class") for note in notes)


def test_a_file_that_is_no_table_is_said(image_folder: Path, rows: list[Row], write: Callable[..., Path]) -> None:
    table = write(rows)
    (image_folder / "notes.md").write_text("x")
    with pytest.raises(DataError, match="a table of labels"):
        load(image_folder / "notes.md")
    with pytest.raises(DataError, match=r"takes the table itself.*it has labels.csv"):
        load(image_folder, source="table")
    (image_folder / "only").mkdir()
    shutil.copy(table, image_folder / "only")
    with pytest.raises(DataError, match=r"A table of labels is data, too: --data .*only/labels.csv"):
        load(image_folder / "only")
    with pytest.raises(DataError, match=r"Table .*labels2.csv .* does not exist. Did you mean 'labels.csv'"):
        load(table.with_name("labels2.csv"))


def test_rows_without_a_label_teach_by_the_teacher_alone(rows: list[list[str]], write: Callable[..., Path]) -> None:
    some = [[row[0], "" if number % 9 == 0 else row[1], row[2]] for number, row in enumerate(rows)]
    path = write(some)
    with pytest.raises(DataError, match=r"1 of 12 pictures of val .* have no label.*without_label skip"):
        load(path)
    train, val = load(path, without_label="skip")
    assert (len(train), len(val), train.unlabeled) == (21, 11, 0)
    train, val = load(write([row[:2] for row in some]))  # what we hold out ourselves has labels
    assert (train.unlabeled, val.unlabeled) == (4, 0)
    assert any("4 training pictures have no label" in note for note in train.notes)
    train, val = load(write([[row[0], "nan" if row[1] == "circle" else row[1]] for row in rows]), fold="1/3")
    assert (train.unlabeled, val.unlabeled) == (12, 0)


def test_missing_pictures_are_counted_and_named(
    image_folder: Path, rows: list[list[str]], write: Callable[..., Path]
) -> None:
    (image_folder / rows[0][0]).unlink()
    path = write([*rows, ["train/circle/no.jpg", "circle", "train", "x"], ["", "circle", "train", "x"]])
    checked = counterpoise.check(path)
    assert [problem["count"] for problem in checked["problems"] if problem["severity"] == "error"] == [0, 2]
    assert str(image_folder / rows[0][0]) in checked["problems"][1]["where"]
    with pytest.raises(DataError, match=r"1 rows name no picture in column 'file', such as row 38"):
        load(path)
    path = write(rows)
    with pytest.raises(DataError, match=r"1 of 36 pictures .* are not there"):
        load(path)
    train = load(path, on_corrupt="skip").train
    assert len(train) == 23
    assert any("They are left out" in note for note in train.notes)
    lost = write([[f"elsewhere/{row[0]}", *row[1:]] for row in rows])
    with pytest.raises(DataError, match=r"36 of 36 .* another folder: --data.options.root"):
        load(lost)
    with pytest.raises(DataError, match="paths of another machine"):
        load(write([[f"C:\\data\\{row[0]}", *row[1:]] for row in rows]))
    with pytest.raises(DataError, match="nothing is fetched"):
        load(write([[f"https://host/{row[0]}", *row[1:]] for row in rows]))


def test_a_picture_in_several_rows(rows: list[list[str]], write: Callable[..., Path]) -> None:
    train = load(write([*rows, rows[0]])).train
    assert len(train) == 24
    assert any("1 rows that name a picture a second time" in note for note in train.notes)
    with pytest.raises(DataError, match="1 pictures are in several rows with different labels"):
        load(write([*rows, [rows[0][0], "square", "train", "x"]]))
    both = write([*rows, [rows[0][0], rows[0][1], "val", "x"]])
    with pytest.raises(DataError, match="1 pictures are in both train and val"):
        load(both)
    assert len(load(both, shared=True).val) == 13


@pytest.mark.parametrize("label", ["circle", ""])
def test_a_picture_of_two_groups_is_refused(rows: list[list[str]], write: Callable[..., Path], label: str) -> None:
    path = write([*rows, [rows[0][0], label, "train", "another"]])
    options = {"group": "patient", **({} if label else {"without_label": "skip"})}
    with pytest.raises(DataError, match=rf"1 pictures of .* several rows with different groups, such as {rows[0][0]}"):
        load(path, **options)
    assert load(write([*rows, rows[0], rows[0]]), group="patient").train.group_names == (
        load(write(rows), group="patient").train.group_names
    )


def test_a_group_is_on_one_side(rows: list[list[str]], write: Callable[..., Path]) -> None:
    path = write(rows)
    patients = load(path, group="patient").train
    assert patients.groups is not None
    assert {name.partition("-")[0] for name in patients.group_names} == {"train", "val"}
    torn = write([*rows[:-1], [*rows[-1][:3], rows[0][3]]])
    with pytest.raises(DataError, match=r"1 groups of column 'patient' are in both train and val.*'train-circle-0'"):
        load(torn, group="patient")
    notes = load(torn, group="patient", shared=True).train.notes
    assert any("1 groups of column 'patient' are in both" in note for note in notes)
    assert not any("each on one side alone" in note for note in notes)


@pytest.mark.parametrize("values", [{"val_fraction": 0.3}, {"fold": "2/3"}, {"held_out": 8}])
def test_what_we_divide_keeps_groups_whole(
    rows: list[list[str]], write: Callable[..., Path], values: dict[str, Any]
) -> None:
    path = write([[row[0], row[1], row[3]] for row in rows], "file,label,patient")
    train, val = load(path, group="patient", **values)
    assert train.groups is not None
    assert val.groups is not None
    assert not set(train.groups.tolist()) & set(val.groups.tolist())
    assert "groups kept whole" in val.origin
    assert val.per_class() is not None
    assert min(val.per_class() or [0]) > 0
    again = load(path, group="patient", **values).val
    assert names(again) == names(val)
    assert names(load(path, group="patient", split_seed=1, **values).val) != names(val)


def test_one_site_or_one_fold_of_a_column_is_evaluated_on(rows: list[list[str]], write: Callable[..., Path]) -> None:
    path = write([[*row[:2], str(number % 5)] for number, row in enumerate(rows)], "file,label,fold")
    with pytest.raises(
        DataError, match=r"has no part 'train', only 0, 1, 2, 3, 4: .*evaluate on, --data.options.val_sp"
    ):
        load(path, label="label", split="fold")
    parts = [load(path, label="label", split="fold", val_split=number) for number in range(5)]
    assert sorted(name for part in parts for name in names(part.val)) == sorted(
        str(path.parent / row[0]) for row in rows
    )
    assert all(len(part.train) + len(part.val) == len(rows) for part in parts)
    assert "column 'fold' has no part 'train': all rows but those of '0' are it" in parts[0].train.notes
    with pytest.raises(DataError, match="has no split '7'"):
        load(path, label="label", split="fold", val_split="7")


def test_rows_in_any_order_are_one_data_set(rows: list[list[str]], write: Callable[..., Path]) -> None:
    fold = load(write(rows), group="patient", fold="1/4", train_split="train")
    again = load(write(rows[::-1]), group="patient", fold="1/4", train_split="train")
    assert [part.fingerprint() for part in fold] == [part.fingerprint() for part in again]
    assert any("data.fold divides the training images; not used: val of" in note for note in fold.train.notes)


def test_commands_take_a_table(image_folder: Path, rows: list[Row], write: Callable[..., Path], run: Run) -> None:
    code, out, _ = run("check", write(rows))
    assert code == 0
    assert "24 images, 8 a class; train of" in out
    code, _, error = run("check", write(rows), "--data.options.label", "nothing")
    assert (code, "has no column 'nothing'" in error) == (2, True)
    code, _, error = run("train", "--data", image_folder, "--data.fold", "6/5", "--student.model", "cifar/resnet8x4")
    assert code == 2
    assert "data.fold" in error
    assert "got '6/5'" in error


def test_a_table_without_the_labels_of_a_run_is_pictures_to_answer(rows: list[Row], write: Callable[..., Path]) -> None:
    known = config.Data(path=write(rows), options={"label": "label", "group": "patient"})
    for names, labeled in (("file", False), ("file,label", None), ("file,lable", None)):
        path = write([row[: names.count(",") + 1] for row in rows], names, "new.csv")
        assert loading.options_for(config.Data(path=path), known).get("labeled") is labeled


# Several labels a picture.

WRITTEN = {
    "columns": ("file,split,round,edged,x", {"label_columns": ["round", "edged", "x"]}),
    "others": ("file,split,round,edged,x", {"label_columns": "others"}),
    "separator": ("file,split,labels", {"separator": "|", "classes": "classes.txt", "blank": "unknown"}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_several_labels_are_columns_or_words_in_one(
    image_folder: Path, rows: list[Row], write: Callable[..., Path], kind: str
) -> None:
    """CheXpert's 1.0, 0.0, -1.0 and nothing, and one column of words, are one table of labels."""
    said = {"circle": ("1.0", "0.0", ""), "square": ("0.0", "1.0", "-1.0"), "stripes": ("1.0", "1.0", "0.0")}
    words = {"circle": "round", "square": "edged", "stripes": "round | edged"}
    head, options = WRITTEN[kind]
    (image_folder / "classes.txt").write_text("round\nedged\nx\n")
    if "classes" in options:
        options = {**options, "classes": image_folder / "classes.txt"}
    table = [[row[0], row[2], *([words[row[1]]] if kind == "separator" else said[row[1]])] for row in rows]
    train, val = load(write(table[::-1], head), **options)
    assert train.classes == val.classes == ("round", "edged", "x")
    expected = {"circle": [1, 0, -1], "square": [0, 1, -1], "stripes": [1, 1, 0]}
    if kind == "separator":
        expected = {shape: [*labels[:2], 0] for shape, labels in expected.items()}
    folder = load(image_folder)
    for part, other in zip((train, val), folder, strict=True):
        assert part.labels.dtype == torch.int8
        assert part.labels.tolist() == [expected[other.classes[label]] for label in other.labels.tolist()]
    if kind != "separator":
        assert any("cells of labels are empty: their labels are unknown" in note for note in train.notes)
        absent = load(write(table, head), **options, blank="absent").train
        assert absent.labels[:, 2].tolist() == [
            {-1: -1 if row == [0, 1, -1] else 0}.get(row[2], 0) for row in train.labels.tolist()
        ]


def test_lists_of_labels_need_no_separator(image_folder: Path, rows: list[Row]) -> None:
    said = {"circle": ["round"], "square": [], "stripes": None}
    lines = [json.dumps({"file": row[0], "split": row[2], "labels": said[row[1]]}) for row in rows if row[2] == "train"]
    lines += [json.dumps({"file": row[0], "split": "val", "labels": ["x", "round"]}) for row in rows if row[2] == "val"]
    path = image_folder / "labels.jsonl"
    path.write_text("\n".join(lines))
    (image_folder / "classes.txt").write_text("round\nx\n")
    train = load(path, classes=image_folder / "classes.txt").train
    expected = {"circle": [1, 0], "square": [0, 0], "stripes": [-1, -1]}
    assert train.labels.tolist() == [expected[row[1]] for row in sorted(rows) if row[2] == "train"]
    path.write_text("\n".join([*lines, json.dumps({"file": rows[0][0], "split": "train", "labels": "round"})]))
    with pytest.raises(DataError, match="holds 'round' beside lists"):
        load(path)


def test_a_run_learns_several_labels_from_a_table(
    image_folder: Path, rows: list[Row], write: Callable[..., Path], tmp_path: Path
) -> None:
    table = [[row[0], row[2], int(row[1] != "square"), int(row[1] != "circle")] for row in rows]
    values = {
        "task": "multilabel",
        "data": {"path": write(table, "file,split,round,edged"), "options": {"label_columns": "others"}, "size": 32},
        "student": {"model": "cifar/resnet8"},
        "train": {"epochs": 1, "batch_size": 4, "precision": "fp32", "device": "cpu"},
        "out": tmp_path / "run",
    }
    assert counterpoise.train(values).last.keys() == {"map", "auroc", "loss", "epoch"}


@pytest.mark.parametrize(
    ("names", "cells", "options", "message"),
    [
        (
            "a,b",
            "1,maybe",
            {"label_columns": "others"},
            "Column 'b' holds 'maybe': expected 1 where the label is there",
        ),
        ("a,b", "1,0", {"label_columns": ["a", "c"]}, "has no column 'c'"),
        ("a,b", "1,0", {"label_columns": ["a", "a"]}, "each once, got a, a"),
        ("a,b", "1,0", {"label_columns": ["a"], "label": "b"}, "give either of them"),
        ("a,b", "1,0", {}, "label_columns others"),
        ("a,b,age", "1,0,30", {}, r"label_columns '\[a, b\]'"),
        ("a", "x", {"separator": "|"}, "No picture has two labels"),
        ("a", "x", {"separator": ""}, "got nothing"),
    ],
)
def test_tables_of_several_labels_that_cannot_be_read_are_refused(
    rows: list[Row], write: Callable[..., Path], names: str, cells: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        load(write([[row[0], row[2], *cells.split(",")] for row in rows], f"file,split,{names}"), **options)
