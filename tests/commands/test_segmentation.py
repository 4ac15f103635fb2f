"""Segmentation from the command line: from a folder of masks to pictures, and what is said of bad input."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise import config
from counterpoise.commands import app
from counterpoise.data import sources
from counterpoise.data.sources.digit_scenes import CLASSES

Run = Callable[..., tuple[int, str, str]]
FAST = ["--train.epochs", "1", "--train.batch_size", "4", "--train.precision", "fp32", "--train.device", "cpu"]
COMMON = ["--task", "segmentation", "--data.workers", "0", *FAST, "--quiet"]
STUDENT = ["--student.model", "digits/unet_4_8"]


def write(root: Path) -> Path:
    """images/ and masks/ with train.txt, val.txt and test.txt: 8, 4 and 3 scenes."""
    section = config.Data(source="digit_scenes", options={"train_size": 8, "val_size": 7, "edge": 24})
    number = 0
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for half in sources.load(section):
        assert half.masked
        for index in range(len(half)):
            Image.fromarray(half.read(index).permute(1, 2, 0).numpy()).save(root / "images" / f"{number:02d}.png")
            Image.fromarray(half.read_mask(index).numpy()).save(root / "masks" / f"{number:02d}.png")
            number += 1
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for name, rows in (("train", range(8)), ("val", range(8, 12)), ("test", range(12, 15))):
        (root / f"{name}.txt").write_text("".join(f"{row:02d}\n" for row in rows))
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scenes/ and the run teacher/ on it."""
    root = tmp_path_factory.mktemp("trained")
    scenes = write(root / "scenes")
    teacher = ["--student.model", "digits/unet_4_8_16", "--data", str(scenes), "--out", str(root / "teacher")]
    assert app.run(["train", *COMMON, *teacher]) == 0
    return root


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write(tmp_path / "scenes")


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith("Error: ")
    for part in parts:
        assert part in err


def test_distill_evaluate_and_gauge(run: Run, trained: Path) -> None:
    arguments = [
        *COMMON,
        *STUDENT,
        "--data",
        trained / "scenes",
        "--teacher.checkpoint",
        trained / "teacher",
        "--teacher.accept_chance",
    ]
    shown = ["--data.scenes.size", "16", "20", "--data.scenes.resolution", "logits", "--data.scenes.jitter", "0.2"]
    code, out, err = run("distill", *arguments, *shown, "--out", "student", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {"miou", "dice", "pixel_accuracy", "epoch"} == set(result["last"])
    code, out, _ = run("evaluate", "student", "--json")
    report = json.loads(out)
    assert report["miou"] == pytest.approx(result["last"]["miou"])
    assert report["images"] == 4
    assert [row["class"] for row in report["per_class"]] == list(CLASSES)
    code, out, _ = run("evaluate", "student", "--split", "test", "--json")
    assert json.loads(out)["images"] == 3
    by_case = ["--by-case", "cases.csv", "--scores", "hd95", "--scores", "object_f1"]
    code, out, err = run("evaluate", "student", *by_case)
    assert code == 0, err
    assert "miou" in out
    assert "over 4 cases" in out
    assert "A case is a picture. 'over cases' is the mean of the cases' own scores" in out
    assert "worst cases" in out
    with open("cases.csv", newline="", encoding="utf-8") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == 4 * list(CLASSES)
    assert {"level", "case", "picture", "dice", "specificity", "hd95", "object_f1"} <= set(rows[0])
    refused(run("evaluate", "student", *by_case), "cases.csv is there already", "--overwrite")
    assert run("evaluate", "student", *by_case, "--overwrite")[0] == 0
    refused(run("evaluate", "student", "--scores", "hd59"), "Did you mean 'hd95'?")
    refused(run("evaluate", "student", "--scores", "auroc"), "auroc is for two classes")
    refused(run("evaluate", "student", "--split", "tset"), "tset", "Did you mean 'test'?")
    assert run("gauge", "student")[0] == 0


def test_predict_paints_pictures_and_overwrites_nothing(run: Run, trained: Path, tmp_path: Path) -> None:
    teacher, picture = trained / "teacher", trained / "scenes" / "images" / "12.png"
    (tmp_path / "other").mkdir()
    Image.open(picture).resize((30, 20)).save(tmp_path / "other" / "12.png")
    code, out, _ = run("predict", picture, "--student", teacher, "--json")
    (answer,) = json.loads(out)
    assert (answer["height"], answer["width"]) == (24, 24)
    assert sum(row["share"] for row in answer["classes"]) == pytest.approx(1)
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]

    paint = ["predict", picture, Path("other/12.png"), "--student", teacher, "--out", "painted", "--json"]
    code, out, err = run(*paint)
    assert code == 0, err
    answers = json.loads(out)
    assert [Path(answer["mask"]).name for answer in answers] == ["12-mask.png", "12-1-mask.png"]
    mask = np.asarray(Image.open(answers[1]["mask"]))
    assert mask.shape == (20, 30)
    found = {row["class"]: row["share"] for row in answers[1]["classes"]}
    assert {CLASSES[value]: (mask == value).mean() for value in np.unique(mask)} == pytest.approx(found)
    before = {path: path.read_bytes() for path in Path("painted").iterdir()}
    assert len(before) == 4
    refused(run(*paint), "12-mask.png is there already", "--overwrite")
    assert {path: path.read_bytes() for path in Path("painted").iterdir()} == before
    code, _, _ = run(*paint, "--beside.teacher", teacher, "--overwrite")
    assert code == 0
    widths = [Image.open(path).width for path in (Path("painted/12-overlay.png"),)]
    Path("narrow.png").write_bytes(before[Path("painted/12-overlay.png")])
    assert widths[0] > Image.open("narrow.png").width


def test_predict_on_the_pictures_of_a_data_set(run: Run, trained: Path) -> None:
    where = ["--student", trained / "teacher", "--data", trained / "scenes", "--out", "painted", "--json"]
    code, out, err = run("predict", *where, "--first", "2")
    assert code == 0, err
    assert [Path(answer["overlay"]).name for answer in json.loads(out)] == ["08-overlay.png", "09-overlay.png"]
    code, out, _ = run("predict", *where, "--split", "test")
    assert [Path(answer["mask"]).name for answer in json.loads(out)] == [f"{row}-mask.png" for row in (12, 13, 14)]
    code, out, _ = run("predict", *where[:-1], "--split", "test", "--overwrite")
    assert code == 0
    assert "images/14.png" in out.replace("\n", "")
    assert "Masks and sheets are in painted" in out
    refused(run("predict", *where, "--first", "0"), "first must be at least 1, got 0")


def test_predict_says_what_it_lacks(run: Run, trained: Path, tmp_path: Path) -> None:
    picture, teacher = trained / "scenes" / "images" / "12.png", trained / "teacher"
    refused(run("predict", picture, "--student", teacher, "--beside.teacher", teacher), "give out (--out)")
    beside = ["--data", trained / "scenes", "--beside.teacher", teacher]
    refused(run("predict", "--student", teacher, *beside), "give out (--out)")
    both = ["predict", picture, "--student", teacher, "--data", trained / "scenes", "--out", "painted"]
    refused(run(*both), "it is either of them")
    refused(run("predict", picture, "--student", teacher, "--beside.truth", teacher, "--out", "p"), "panels already")
    refused(run("predict", "nowhere.png", "--student", teacher, "--out", "painted"), "nowhere.png")
    digits = ["--data.source", "digits", "--data.options.train_size", "60", *FAST, "--quiet"]
    assert run("train", *digits, "--student.model", "digits/cnn_4_8", "--out", "words")[0] == 0
    refused(run("evaluate", "words", "--by-case", "cases.csv"), "by_case is for masks, and the student answers class")
    refused(run("evaluate", "words", "--scores", "dice"), "task classification tells all it has, got dice")
    refused(run("predict", picture, "--student", "words", "--out", "painted"), "Task classification answers in words")
    refused(
        run("predict", picture, "--student", teacher, "--beside.words", "words", "--out", "painted"),
        "'words' answers in 10 classes",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words"]


def test_predict_tells_pictures_of_one_name_apart(run: Run, trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "towns"
    for side in ("images", "masks"):
        for town in ("ulm", "hof"):
            for half in ("train", "val"):
                folder = root / side / half / town
                folder.mkdir(parents=True)
                (folder / "0.png").write_bytes((trained / "scenes" / side / "00.png").read_bytes())
    (root / "classes.txt").write_text("\n".join(CLASSES))
    code, out, err = run("predict", "--student", trained / "teacher", "--data", root, "--out", "painted", "--json")
    assert code == 0, err
    assert len({answer["mask"] for answer in json.loads(out)}) == 2


def mask_of(value: int) -> Image.Image:
    return Image.fromarray(np.full((24, 24), value, dtype=np.uint8))


def colored() -> Image.Image:
    pixels = np.zeros((24, 24, 3), dtype=np.uint8)
    pixels[2:4, 2:4] = (9, 8, 200)
    return Image.fromarray(pixels)


DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a mask is missing": (
        lambda root: (root / "masks" / "03.png").unlink(),
        ("1 of 8 images have no mask below", "images/03.png"),
    ),
    "a value beyond the classes": (
        lambda root: mask_of(77).save(root / "masks" / "03.png"),
        ("masks/03.png holds the value 77 (576 pixels)", "names the classes 0 to 10", "data.options.ignore to 77"),
    ),
    "colors without colors in the classes file": (
        lambda root: colored().save(root / "masks" / "03.png"),
        ("masks/03.png holds colors (0 0 0, ", "names none: write the color behind each class"),
    ),
    "16 bits": (
        lambda root: Image.fromarray(np.zeros((24, 24), dtype=np.uint16)).save(root / "masks" / "03.png"),
        ("masks/03.png is 16-bit; masks are 8-bit",),
    ),
    "all void": (
        lambda root: mask_of(255).save(root / "masks" / "03.png"),
        ("masks/03.png is all void: no pixel has a class",),
    ),
    "another size than its image": (
        lambda root: Image.new("L", (20, 24)).save(root / "masks" / "03.png"),
        ("masks/03.png is 20 x 24 pixels, and its image", "is 24 x 24"),
    ),
    "an unreadable mask": (
        lambda root: (root / "masks" / "03.png").write_bytes(b"no picture"),
        ("masks/03.png", "cannot be read"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("memory", ["2", "0"], ids=["memory", "files"])
def test_bad_masks_are_named(run: Run, scenes: Path, damage: str, memory: str) -> None:
    spoil, parts = DAMAGES[damage]
    spoil(scenes)
    arguments = [*COMMON, *STUDENT, "--data", scenes, "--data.memory_limit_gb", memory, "--data.options.ignore", "255"]
    refused(run("train", *arguments, "--data.scenes.size", "16", "16", "--out", "new"), *parts)
    assert not Path("new/student").exists()
    assert memory == "0" or not Path("new").exists()


def test_masks_and_images_of_unlike_number_in_folders(run: Run, scenes: Path) -> None:
    for name in ("train", "val", "test"):
        (scenes / f"{name}.txt").unlink()
    (scenes / "images" / "03.png").unlink()
    refused(run("train", *COMMON, *STUDENT, "--data", scenes, "--out", "new"), "holds 15 masks", "14 images", "03.png")


def test_a_color_that_no_class_has(run: Run, scenes: Path) -> None:
    (scenes / "classes.txt").write_text("ground 0 0 0\ndigit 0 0 255\n")
    for path in (scenes / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.stack([0 * mask, 0 * mask, 255 * (mask > 0)], 2).astype(np.uint8)).save(path)
    assert run("train", *COMMON, *STUDENT, "--data", scenes, "--out", "good")[0] == 0
    colored().save(scenes / "masks" / "03.png")
    refused(
        run("train", *COMMON, *STUDENT, "--data", scenes, "--out", "new"),
        "masks/03.png holds the color 9 8 200 (4 pixels), unknown to",
        "The nearest is 'digit', 0 0 255",
    )
    assert not Path("new").exists()


def test_nothing_of_an_older_run_is_lost_by_a_bad_mask(run: Run, scenes: Path) -> None:
    arguments = [*COMMON, *STUDENT, "--data", scenes, "--out", "mine"]
    assert run("train", *arguments)[0] == 0
    kept = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    mask_of(77).save(scenes / "masks" / "03.png")
    refused(run("train", *arguments, "--overwrite"), "holds the value 77")
    refused(run("train", *arguments, "--resume"), "holds the value 77")
    assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == kept
    mask_of(77).save(scenes / "masks" / "12.png")
    refused(run("evaluate", "mine", "--split", "test"), "masks/12.png holds the value 77")


def test_a_teacher_of_other_classes(run: Run, trained: Path, scenes: Path) -> None:
    (scenes / "classes.txt").write_text("\n".join(["ground", *CLASSES[1:]]))
    arguments = [
        *COMMON,
        *STUDENT,
        "--data",
        scenes,
        "--teacher.checkpoint",
        trained / "teacher",
        "--teacher.accept_chance",
        "--out",
        "new",
    ]
    refused(
        run("distill", *arguments),
        "1 of the student's 11 classes are not found among the 11 of the teacher",
        "'ground' is unknown",
        "teacher.classes",
    )
    assert not Path("new").exists()
    refused(run("evaluate", trained / "teacher", "--data", scenes), "only in the data: ground", "student: background")


def test_another_task_or_section_is_named(run: Run, scenes: Path) -> None:
    refused(run("train", *STUDENT, "--data", scenes), "classification learns one a picture")
    refused(
        run("train", *COMMON[2:], *STUDENT, "--data", scenes, "--task", "segmantation"), "Did you mean 'segmentation'?"
    )
    refused(
        run("train", *COMMON, *STUDENT, "--data", scenes, "--data.scenes.reduction", "0.5"), "data.scenes.reduction"
    )
    refused(
        run("train", *COMMON, *STUDENT, "--data", scenes, "--data.scenes.scale", "2", "1"), "scale must be positive"
    )
    weights = ["--objective.cross_entropy.class_weight", "[1, 2]"]
    refused(
        run("train", *COMMON, *STUDENT, "--data", scenes, *weights, "--out", "w"), "class_weight has 2 numbers", "11"
    )
    refused(
        run("train", *COMMON, *STUDENT, "--data", scenes, "--objective.cross_entropy.class_weight", "frequent"),
        "class_weight must be numbers from 0 on",
    )


def test_a_real_process_says_it_without_a_traceback(program: list[str], scenes: Path, tmp_path: Path) -> None:
    mask_of(77).save(scenes / "masks" / "03.png")
    command = [*program, "train", *COMMON, *STUDENT, "--data", str(scenes), "--out", "new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Mask ")
    assert "Traceback" not in done.stderr


def lesions(root: Path) -> Path:
    """images/{train,val} and masks/{train,val}, 4 and 2 scenes; 0 and 255 in the masks, names alone in classes.txt."""
    for half, count in (("train", 4), ("val", 2)):
        for number in range(count):
            values = np.zeros((24, 24), dtype=np.uint8)
            values[4:14, 3 + number : 15 + number] = 255
            for side, pixels in (("images", np.stack([values] * 3, 2)), ("masks", values)):
                path = root / side / half / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (root / "classes.txt").write_text("background\nlesion\n")
    return root


def test_masks_of_0_and_255_lead_to_two_classes(run: Run, tmp_path: Path) -> None:
    root = lesions(tmp_path / "lesions")
    train = ["train", *COMMON[:-1], *STUDENT, "--data", root, "--data.scenes.size", "16", "16"]
    refused(run(*train, "--out", "a"), "If it is a class, write the value behind every name", "'lesion 255'")
    void = [*train, "--data.options.ignore", "255"]
    refused(run(*void, "--out", "b"), "hold no class but 'background', and no pixel of 'lesion'", "lesion 255")
    assert not Path("a").exists()
    assert not Path("b").exists()
    (root / "classes.txt").write_text("background 0\nlesion 255\n")
    code, _, err = run(*train, "--out", "c")
    assert code == 0, err
    assert "train    4 scenes, pixels: background 79%, lesion 21%" in err
    assert "in evaluation whole" in err


def test_evaluate_warns_of_classes_that_never_occur_and_refuses_one_alone(run: Run, tmp_path: Path) -> None:
    root = lesions(tmp_path / "lesions")
    (root / "classes.txt").write_text("background 0\nedge 128\nlesion 255\n")
    code, _, err = run("train", *COMMON[:-1], *STUDENT, "--data", root, "--data.scenes.size", "16", "16", "--out", "c")
    assert code == 0, err
    assert "No pixel in the masks of train of" in err
    assert "is of the class 'edge'" in err
    code, out, _ = run("evaluate", "c")
    assert code == 0
    assert "Never in the masks, so that no score says how well it is known: edge" in out
    assert json.loads(run("evaluate", "c", "--json")[1])["absent"] == ["edge"]
    for path in (root / "masks" / "val").iterdir():
        Image.new("L", (24, 24)).save(path)
    refused(run("evaluate", "c"), "hold no class but 'background'", "100 whatever is answered")


def test_check_finds_what_is_wrong_with_scenes(run: Run, tmp_path: Path) -> None:
    root = lesions(tmp_path / "lesions")
    code, out, err = run("check", root)
    assert code == 2
    assert "5 more masks are like it" in out + err
    (root / "classes.txt").write_text("background 0\nlesion 255\n")
    code, out, _ = run("check", root)
    assert code == 0
    assert "val      2 scenes, pixels: background 79%, lesion 21%" in out


def test_masks_that_do_not_fit_are_skipped_everywhere_where_asked(run: Run, tmp_path: Path) -> None:
    root = lesions(tmp_path / "lesions")
    (root / "classes.txt").write_text("background 0\nlesion 255\n")
    for name in ("train/1.png", "val/0.png"):
        Image.new("L", (12, 24)).save(root / "masks" / name)
    train = ["train", *COMMON, *STUDENT, "--data", root, "--data.scenes.size", "16", "16", "--json"]
    refused(run(*train, "--out", "a"), "2 of 6 masks are of another size", "--data.on_corrupt skip")
    for memory in ("2", "0"):
        skip = ["--data.on_corrupt", "skip", "--data.memory_limit_gb", memory]
        code, out, err = run(*train, *skip, "--out", f"skip{memory}")
        assert code == 0, err
        assert json.loads(out)["corrupt"] == 2
    assert json.loads(run("evaluate", "skip0", "--json")[1])["images"] == 1
    code, out, err = run("predict", "--student", "skip0", "--data", "skip0/run.yaml", "--out", "painted", "--json")
    assert code == 0, err
    assert [Path(answer["mask"]).name for answer in json.loads(out)] == ["1-mask.png"]


def test_answers_of_student_and_teacher_are_averaged_over_views(trained: Path, tmp_path: Path, run: Run) -> None:
    scores = {}
    for views in (1, 2, 12):
        code, out, err = run("evaluate", trained / "teacher", "--views", views, "--json")
        assert code == 0, err
        scores[views] = json.loads(out)
    assert scores[1]["miou"] != scores[2]["miou"]
    assert scores[12]["views"] == 12
    assert scores[12]["notes"] == [
        "Answers are means of the probabilities at every place over 12 views of each scene: it mirrored, upside down, "
        "and both at 3/4, 1 and 5/4 of its size."
    ]
    refused(run("evaluate", trained / "teacher", "--views", 10), "views: 10 of a scene are none", "12 are it mirrored")
    picture = trained / "scenes" / "images" / "08.png"
    code, _, err = run("predict", picture, "--student", trained / "teacher", "--views", 4, "--out", tmp_path / "drawn")
    assert (code, (tmp_path / "drawn" / "08-mask.png").exists()) == (0, True)
    assert "answers are means of the probabilities at every place over 4 views" in err
    teacher = ["--teacher.checkpoint", trained / "teacher", "--teacher.accept_chance", "--teacher.views"]
    common = [*COMMON, "--data", trained / "scenes", *STUDENT]
    code, _, err = run("distill", *common, *teacher, 6, "--out", tmp_path / "run")
    assert code == 0, err
    again = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    code, out, err = run("evaluate", trained / "teacher", "--views", 6, "--json")
    assert again["val"]["miou"] == pytest.approx(json.loads(out)["miou"], abs=1e-3)
    refused(run("distill", *common, *teacher, 10, "--out", tmp_path / "no"), "views: 10 of a scene are none")
