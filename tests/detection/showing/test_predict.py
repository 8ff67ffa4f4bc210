"""A detector from its run folder alone: the same detections as in training's evaluation, drawn, and as a COCO
json."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from automix_transfer.command_line import command
from automix_transfer.commands import detect_predict
from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS, QUICK


@pytest.fixture(scope="module")
def run(tmp_path_factory, coco) -> Path:
    """A run folder, moved after training; the data set's category ids are 3 and 7."""
    from automix_transfer.detection import trainer

    first = tmp_path_factory.mktemp("first") / "run"
    options = [
        *QUICK,
        "SOLVER.MAX_ITER",
        "12",
        "SOLVER.BASE_LR",
        "0.02",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "0.0",
    ]
    trainer.run(CONFIGS / "embedded_R10_FPN.yaml", "", coco, first, options)
    return Path(shutil.move(first, tmp_path_factory.mktemp("moved") / "elsewhere"))


def test_finds_what_the_evaluation_found(run, coco, tmp_path):
    """To the last bit: reading, scaling, channel order, and category ids are those of training's own
    evaluation."""
    from automix_transfer.detection.showing.inference import load_run
    from automix_transfer.detection.showing.predict import find_images, predict

    detector = load_run(run)
    assert detector.names == ["circle", "square"]
    found = predict(detector, find_images([coco / "val2017"]), tmp_path, threshold=0.0, draw=False)
    names = {image["id"]: int(Path(image["file_name"]).stem) for image in found.images}
    ours = sorted(
        (names[item["image_id"]], item["category_id"], item["score"], item["bbox"])
        for item in found.annotations
    )
    evaluated = json.loads((run / "inference" / "coco_instances_results.json").read_text())
    assert (
        ours
        == sorted((item["image_id"], item["category_id"], item["score"], item["bbox"]) for item in evaluated)
        and len(ours) > 8
    )
    assert {item["category_id"] for item in found.annotations} == {3, 7} and not (tmp_path / "drawn").exists()


def test_json_is_cocos(run, coco, tmp_path, capsys):
    from pycocotools.coco import COCO

    from automix_transfer.detection.showing.inference import load_run
    from automix_transfer.detection.showing.predict import find_images, predict

    predict(load_run(run), find_images([coco / "val2017"]), tmp_path, threshold=0.0)
    written = COCO(str(tmp_path / "predictions.json"))
    assert [written.cats[number]["name"] for number in (3, 7)] == ["circle", "square"] and len(
        written.imgs
    ) == 4
    again = COCO(str(coco / "annotations" / "instances_val2017.json"))
    moved = [{**item, "image_id": item["image_id"] + 99} for item in written.dataset["annotations"]]
    assert len(again.loadRes(moved).anns) == len(moved)
    for image in written.imgs.values():
        with Image.open(tmp_path / "drawn" / image["file_name"]) as drawn:
            assert drawn.size == (image["width"], image["height"]) == (80, 64)
            original = np.asarray(Image.open(coco / "val2017" / image["file_name"]).convert("RGB"), dtype=int)
            assert (np.abs(np.asarray(drawn, dtype=int) - original).max(axis=2) > 60).any(), "boxes are drawn"


@pytest.mark.slow
def test_command_line_with_bad_images(run, coco, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    good = next((coco / "val2017").iterdir())
    shutil.copy(good, folder / "deep" / "a.jpg")
    Image.open(good).save(folder / "deep" / "a.png")
    Image.open(good).convert("L").save(folder / "grey.png")
    (folder / "broken.jpg").write_bytes(good.read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    done = subprocess.run(
        command(
            "detect predict",
            "--run",
            str(run),
            str(folder),
            "--threshold",
            "0.01",
            "--output",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "left out: image" in done.stdout and "broken.jpg is truncated" in done.stdout
    assert "1 of 4 images could not be read" in done.stderr
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["deep/a.jpg", "deep/a.png", "grey.png"]
    assert len(written["info"]["problems"]) == 1 and "on_bad_image" not in written["info"]["problems"][0]
    drawn = {
        path.relative_to(tmp_path / "out" / "drawn").as_posix()
        for path in (tmp_path / "out" / "drawn").rglob("*.jpg")
    }
    assert drawn == {"deep/a.jpg", "deep/a.png.jpg", "grey.jpg"}
    assert all(item["score"] >= 0.01 for item in written["annotations"])


def test_images_that_are_not_there(run, coco, tmp_path):
    from automix_transfer.detection.showing.inference import load_run
    from automix_transfer.detection.showing.predict import find_images, predict

    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    image = next((coco / "val2017").iterdir())
    shutil.copy(image, other / image.name)
    for given, message in (
        ([tmp_path / "none.jpg"], "does not exist"),
        ([tmp_path / "empty"], "holds no image"),
        ([image, other / image.name], "two images are called"),
    ):
        with pytest.raises(UserError, match=message):
            find_images(given)
    (tmp_path / "bad.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="none of the 1 images could be read"):
        predict(load_run(run), find_images([tmp_path / "bad.jpg"]), tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_run_folders_that_are_not_whole(run, tmp_path):
    from automix_transfer.detection.showing.inference import load_run

    def copy(name: str) -> Path:
        return Path(shutil.copytree(run, tmp_path / name))

    (copy("a") / "config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml does not exist"):
        load_run(tmp_path / "a")
    (copy("b") / "model_final.pth").unlink()
    (tmp_path / "b" / "last_checkpoint").unlink(missing_ok=True)
    with pytest.raises(UserError, match="holds neither model_final.pth nor a checkpoint"):
        load_run(tmp_path / "b")
    (copy("c") / "categories.json").write_text('[{"id": 1, "name": "circle"}]')
    with pytest.raises(UserError, match="1 categories, but MODEL.ROI_HEADS.NUM_CLASSES in config.yaml is 2"):
        load_run(tmp_path / "c")
    (tmp_path / "c" / "categories.json").write_text('["circle", "square"]')
    with pytest.raises(UserError, match="must be a list of"):
        load_run(tmp_path / "c")
    for ids in ((1, 1), (1, 10**60)):
        (tmp_path / "c" / "categories.json").write_text(json.dumps([{"id": id, "name": "a"} for id in ids]))
        with pytest.raises(UserError, match=r"categories\.json"):
            load_run(tmp_path / "c")
    (tmp_path / "c" / "categories.json").unlink()
    with pytest.raises(UserError, match="has no names; write it"):
        _forget(load_run, tmp_path / "c")
    (copy("d") / "model_final.pth").write_bytes(b"no torch file")
    with pytest.raises(UserError, match="model_final.pth"):
        load_run(tmp_path / "d")
    with pytest.raises(UserError, match="nosuch.pth does not exist; choose one of .*model_final.pth"):
        load_run(run, "nosuch.pth")
    config = copy("e") / "config.yaml"
    config.write_text(
        config.read_text() + "\nX: !!python/object/apply:os.system ['touch " + str(tmp_path / "ran") + "']\n"
    )
    with pytest.raises(UserError, match="config.yaml"):
        load_run(tmp_path / "e")
    assert not (tmp_path / "ran").exists()
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="--device cpu"):
            load_run(run, device="cuda")


def _forget(load, folder: Path):
    """In a process that has not registered the run's data."""
    from detectron2.data import DatasetCatalog

    names = [name for name in DatasetCatalog.list() if ":" in name]
    for name in names:
        DatasetCatalog.remove(name)
    return load(folder)


def test_last_checkpoint_where_training_did_not_end(run, tmp_path):
    from automix_transfer.detection.showing.inference import load_run

    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "model_final.pth").rename(folder / "model_0000003.pth")
    (folder / "last_checkpoint").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="last_checkpoint"):
        load_run(folder)
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    assert load_run(folder).checkpoint.name == "model_0000003.pth"


def test_settings_are_the_runs_own(run, tmp_path, monkeypatch):
    """Another run lies by now where this one was trained, as its config.yaml still says; nothing of that one
    is taken."""
    from automix_transfer.detection.showing.inference import load_run

    monkeypatch.chdir(tmp_path)
    folder, other = (Path(shutil.copytree(run, tmp_path / name)) for name in ("mine", "other"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["OUTPUT_DIR"] = "other"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (
        config["INPUT"]["MIN_SIZE_TEST"],
        config["MODEL"]["PIXEL_MEAN"],
        config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"],
    ) = 32, [0.0, 0.0, 0.0], 5
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    detector, whole = load_run(folder), load_run(run)
    assert detector.cfg.OUTPUT_DIR == str(folder) and detector.cfg.INPUT.MIN_SIZE_TEST == 64
    assert detector.cfg.MODEL == whole.cfg.MODEL.clone() | {"WEIGHTS": detector.cfg.MODEL.WEIGHTS}


def test_drawing():
    from automix_transfer.detection.showing.rectangles import class_colour, draw_boxes, fit

    image = np.full((40, 60, 3), 90, np.uint8)
    drawn = draw_boxes(
        image, [[10, 15, 30, 35], [-5, -5, 500, 500]], ["dog 0.90", "hättö"], [(255, 0, 0), (0, 0, 255)]
    )
    assert (image == 90).all(), "the image is the caller's"
    assert (
        (drawn[25, 10] == (255, 0, 0)).all()
        and (drawn[35, 20] == (255, 0, 0)).all()
        and (drawn[25, 20] == 90).all()
    )
    assert (draw_boxes(image, np.zeros((0, 4)), [], []) == image).all()
    assert len({class_colour(label) for label in range(80)}) > 70
    assert (
        fit(image, 30).shape == (30, 30, 3)
        and (fit(image, 30)[0] == 255).all()
        and (fit(image, 30)[15] == 90).all()
    )


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        detect_predict.parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and all(
        word in shown for word in ("--run", "--threshold", "predictions.json", "exit code", "COCO")
    )


@pytest.mark.parametrize("size", [(1, 5000), (70_000, 400)])
def test_images_without_a_pixel_at_the_detectors_size(size):
    from automix_transfer.detection.showing.predict import check_sides

    with pytest.raises(UserError, match=r"a\.png"):
        check_sides(Path("a.png"), size, 1333)
    check_sides(Path("a.png"), (min(size[0], 2000), min(size[1], 2000)), 1333)


def test_a_large_image_is_drawn_smaller_with_its_boxes(run, coco, monkeypatch):
    from automix_transfer.detection.showing import examples
    from automix_transfer.detection.showing.rectangles import drawable

    image = Image.new("RGB", (40, 20))
    small, scale = drawable(image, 100)
    assert small.size == (14, 7) and scale == 1 / 3 and drawable(image, 800) == (image, 1)
    [whole] = examples.detect_examples(run, coco, 1, 0.0)
    monkeypatch.setattr(examples, "MOST_PIXELS", whole.image.shape[0] * whole.image.shape[1] // 4)
    [half] = examples.detect_examples(run, coco, 1, 0.0)
    assert half.image.shape[0] * 2 == whole.image.shape[0] and half.scores == whole.scores
    assert np.array_equal(2 * half.boxes, whole.boxes) and np.array_equal(
        2 * half.true_boxes, whole.true_boxes
    )


def test_a_strip_fits_into_a_square():
    from automix_transfer.detection.showing.rectangles import fit

    for shape in ((1, 5000, 3), (5000, 1, 3)):
        fitted = fit(np.zeros(shape, np.uint8), 26)
        assert fitted.shape == (26, 26, 3) and (fitted == 0).all(axis=2).sum() >= 26


def test_a_name_of_any_length_is_drawn():
    from automix_transfer.detection.showing.rectangles import draw_boxes

    image = draw_boxes(np.zeros((40, 60, 3), np.uint8), [[1, 20, 50, 39]], ["x\n" * 10**6], [(255, 0, 0)])
    assert image.any()
