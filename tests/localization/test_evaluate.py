"""The whole evaluation: a small CUB, from weights and from score maps, against the oracle, interrupted, and
with bad input."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.commands import localize
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import save_torch
from automix_transfer.localization.metadata import read_metadata
from automix_transfer.localization.overlays import grid, overlay, to_png
from automix_transfer.localization.records import COMMON, Records
from automix_transfer.localization.scores.box_task import BoxTask
from automix_transfer.models.encoders import EncoderInfo, create_encoder
from tests.localization import oracle

SIZE = 32
BOXES = [(3, 5, 20, 21), (0, 0, 39, 29), (12, 9, 25, 28), (6, 2, 18, 17), (1, 8, 30, 20), (10, 3, 22, 25)]


@pytest.fixture(scope="module")
def cub(tmp_path_factory):
    """Six test images of three classes, 40x30, in CUB's layout, with the reference's metadata and an
    untrained network."""
    root = tmp_path_factory.mktemp("wsol") / "CUB_200_2011"
    rng = np.random.default_rng(0)
    rows = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
    }
    metadata = {name: [] for name in ("image_ids", "class_labels", "image_sizes", "localization")}
    for label in range(3):
        rows["classes"].append(f"{label + 1} {label + 1:03}.Bird{label}")
        for k in range(3):
            number, name = len(rows["images"]) + 1, f"{label + 1:03}.Bird{label}/Bird_{k}.png"
            test = k > 0
            x0, y0, x1, y1 = BOXES[label * 2 + k - 1] if test else (1, 1, 9, 9)
            (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(root / "images" / name)
            rows["images"].append(f"{number} {name}")
            rows["image_class_labels"].append(f"{number} {label + 1}")
            rows["train_test_split"].append(f"{number} {int(not test)}")
            rows["bounding_boxes"].append(f"{number} {x0} {y0} {x1 - x0} {y1 - y0}")
            if test:
                metadata["image_ids"].append(name)
                metadata["class_labels"].append(f"{name},{label}")
                metadata["image_sizes"].append(f"{name},40,30")
                metadata["localization"].append(f"{name},{x0},{y0},{x1},{y1}")
    for name, lines in rows.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "metadata").mkdir()
    for name, lines in metadata.items():
        (root / "metadata" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    torch.manual_seed(1)
    info = EncoderInfo("resnet10_32", 3, image_size=64)
    model = {f"encoder.{key}": value for key, value in create_encoder("resnet10_32", 3).state_dict().items()}
    save_torch(
        root / "last.pt",
        {
            "format": "automix_transfer/1",
            "encoder": info.to_dict(),
            "encoders": {"encoder": "encoder."},
            "model": model,
            "config": {},
            "step": 1,
            "epoch": 0,
        },
    )
    return root


def run(monkeypatch, *arguments):
    """The command's exit code, in this process."""
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: localize.main([*map(str, arguments)]))
    return stop.value.code


def from_maps(cub, maps, output, *more, size=SIZE):
    found = ("--scoremaps", maps, "--metadata", cub / "metadata", "--map-size", size)
    return (*found, *(("--output", output) if output else ()), *more)


def from_weights(cub, output, *more):
    found = ("--dataset", "cub", "--root", cub, "--checkpoint", cub / "last.pt", "--output", output, *more)
    return ("--image-size", 64, "--map-size", SIZE, "--batch-size", 4, "--interval", 0.01, *found)


def test_from_a_checkpoint_and_from_its_saved_maps(cub, tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "a" / "out.json", tmp_path / "b.json"
    assert (
        run(monkeypatch, *from_weights(cub, first, "--save-maps", tmp_path / "maps", "--output-stride", 16))
        == 0
    )
    assert "center box" in capsys.readouterr().out
    assert run(monkeypatch, *from_maps(cub, tmp_path / "maps", second, "--interval", 0.01)) == 0
    a, b = json.loads(first.read_text()), json.loads(second.read_text())
    same = "MaxBoxAcc MaxBoxAccV2 per_delta best_threshold best_thresholds gt_known center_box full_image"
    for key in same.split():
        assert a[key] == b[key], key
    assert (
        a["n_images"] == 6
        and a["output_stride"] == 16
        and a["map_cells"] == [4, 4]
        and len(a["weights_sha256"]) == 64
    )
    assert b["top1_accuracy"] is None and a["gt_known"] == a["MaxBoxAcc"] >= a["top1_localization"]

    thresholds = np.arange(0, 1, 0.01)
    targets = read_metadata(cub / "metadata").targets
    curves = {True: [], False: []}
    for target, box in zip(targets, BOXES, strict=True):
        values = np.load(tmp_path / "maps" / f"{target.image_id}.npy")
        true = [[int(v * float(SIZE) / side) for v, side in zip(box, (40, 30, 40, 30), strict=True)]]
        for all_contours, found in curves.items():
            found.append(oracle.iou_curve(values, true, thresholds, all_contours))
    assert a["MaxBoxAcc"] == oracle.max_box_acc(curves[False], 0.5)
    assert a["per_delta"] == {str(d): oracle.max_box_acc(curves[True], d) for d in (0.3, 0.5, 0.7)}
    with (first.parent / "out.csv").open() as file:
        table = list(csv.DictReader(file))
    at = int(np.argmax(np.isclose(thresholds, a["best_threshold"])))
    for row, target, curve in zip(table, targets, curves[False], strict=True):
        values = np.load(tmp_path / "maps" / f"{target.image_id}.npy")
        assert row["image_id"] == target.image_id and float(row["iou"]) == pytest.approx(curve[at], abs=1e-6)
        assert [int(row[k]) for k in ("x0", "y0", "x1", "y1")] == oracle.boxes_at(
            values, thresholds[at], False
        )[0]
    assert (first.parent / "out.png").read_bytes().startswith(b"\x89PNG")
    page = (first.parent / "out.html").read_text()
    assert page.count("data:image/webp") == 6 and "output stride" in page
    # nothing partial is left
    assert sorted(p.name for p in first.parent.iterdir()) == ["out.csv", "out.html", "out.json", "out.png"]


def numbers(path):
    """The content of out.json without its times and the folder of its score maps."""
    return {
        key: value
        for key, value in json.loads(path.read_text()).items()
        if key not in ("seconds", "scoremaps")
    }


@pytest.mark.parametrize("kind", ["weights", "score maps", "threshold split"])
def test_an_interrupted_run_goes_on(cub, tmp_path, monkeypatch, capsys, kind):
    whole, cut, maps = tmp_path / "whole.json", tmp_path / "cut.json", tmp_path / "maps"
    write_maps(maps, cub / "metadata")

    def arguments(output):
        if kind == "score maps":
            return from_maps(cub, maps, output, "--workers", 1)
        split = ("--threshold-split", "train") if kind == "threshold split" else ()
        return from_weights(cub, output, "--workers", 1, *split)

    assert run(monkeypatch, *arguments(whole)) == 0
    measure, calls = BoxTask.measure, []

    def stop_at_the_fifth(*given):
        calls.append(None)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(BoxTask, "measure", stop_at_the_fifth)
    assert run(monkeypatch, *arguments(cut)) == 130
    assert "goes on" in capsys.readouterr().err and not cut.exists()
    calls.clear()
    monkeypatch.setattr(BoxTask, "measure", lambda *given: (calls.append(None), measure(*given))[1])
    assert run(monkeypatch, *arguments(cut)) == 0
    total = 9 if kind == "threshold split" else 6  # 3 images of the training split, which comes first
    assert len(calls) == total - 4 and numbers(cut) == numbers(whole)
    assert cut.with_suffix(".csv").read_text() == whole.with_suffix(".csv").read_text()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_file_of_records_that_is_somebody_elses(tmp_path, monkeypatch):
    """It is refused; one whose signature was damaged, or was killed before it had one, is begun anew."""
    dtype, file = np.dtype(COMMON), tmp_path / "out.partial"
    file.write_text("mine")
    with pytest.raises(UserError, match=r"out\.partial exists"):
        Records(3, dtype, file, {})
    assert file.read_text() == "mine"
    file.unlink()
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # macOS
    first = Records(3, dtype, file, {})
    first.put(1, None, {})
    assert Records(3, dtype, file, {}).n_continued == 1
    (tmp_path / "out.partial.json").write_bytes(b"\xff\0")
    assert Records(3, dtype, file, {}).n_continued == 0


def test_maps_that_changed_meanwhile_are_measured_again(cub, tmp_path, monkeypatch):
    last = write_maps(tmp_path / "maps", cub / "metadata")
    arguments = from_maps(cub, tmp_path / "maps", tmp_path / "out.json", "--workers", 1)
    measure, calls = BoxTask.measure, []

    def stop_at_the_fourth(*given):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(BoxTask, "measure", stop_at_the_fourth)
    assert run(monkeypatch, *arguments) == 130
    np.save(last, np.eye(SIZE))
    calls[:] = [None] * 5
    assert run(monkeypatch, *arguments) == 0 and len(calls) == 11


@pytest.mark.slow
def test_the_threshold_of_another_split(cub, tmp_path, monkeypatch, capsys):
    """Chosen where the training images do best, reported on the test images; from both CSVs by hand."""
    both, train = tmp_path / "both.json", tmp_path / "train.json"
    assert run(monkeypatch, *from_weights(cub, both, "--threshold-split", "train")) == 0
    assert "BoxAcc, t of train" in capsys.readouterr().out
    assert run(monkeypatch, *from_weights(cub, train, "--split", "train")) == 0
    ours, theirs = json.loads(both.read_text()), json.loads(train.read_text())
    split = ours["threshold_split"]
    assert (
        split["split"] == "train"
        and split["n_images"] == 3
        and split["best_thresholds"] == theirs["best_thresholds"]
    )
    assert ours["localization_threshold"] == theirs["best_threshold"]
    assert split["BoxAcc"] == ours["gt_known"] <= ours["MaxBoxAcc"]
    assert (
        run(monkeypatch, *from_weights(cub, tmp_path / "fixed.json", "--threshold", theirs["best_threshold"]))
        == 0
    )
    assert json.loads((tmp_path / "fixed.json").read_text())["gt_known"] == split["BoxAcc"]
    assert all(split["per_delta"][d] <= ours["per_delta"][d] for d in ("0.3", "0.5", "0.7"))
    assert split["BoxAccV2"] == np.mean(list(split["per_delta"].values()))
    # the same from saved maps and metadata
    (tmp_path / "train").mkdir()
    for name, line in (
        ("image_ids", "{}"),
        ("class_labels", "{},0"),
        ("image_sizes", "{},40,30"),
        ("localization", "{},1,1,9,9"),
    ):
        ids = [f"{label + 1:03}.Bird{label}/Bird_0.png" for label in range(3)]
        (tmp_path / "train" / f"{name}.txt").write_text("\n".join(line.format(i) for i in ids) + "\n")
    maps = tmp_path / "maps"
    saved = from_weights(cub, tmp_path / "x.json", "--save-maps", maps, "--threshold-split", "train")
    assert run(monkeypatch, *saved) == 0
    more = ("--threshold-metadata", tmp_path / "train", "--interval", 0.01)
    assert run(monkeypatch, *from_maps(cub, maps, tmp_path / "y.json", *more)) == 0
    again = json.loads((tmp_path / "y.json").read_text())["threshold_split"]
    assert again == {**split, "split": "train"}


def test_metadata_with_images(cub, tmp_path, monkeypatch, capsys):
    """The same numbers as from the native layout; images that are missing or of another size are named."""
    native, output = tmp_path / "a.json", tmp_path / "b.json"
    assert run(monkeypatch, *from_weights(cub, native)) == 0
    common = ("--checkpoint", cub / "last.pt", "--metadata", cub / "metadata", "--interval", 0.01)
    common = (*common, "--image-size", 64, "--map-size", SIZE)
    assert run(monkeypatch, *common, "--images", cub / "images", "--output", output, "--batch-size", 4) == 0
    a, b = numbers(native), numbers(output)
    assert all(
        a[key] == b[key] for key in ("MaxBoxAcc", "MaxBoxAccV2", "top1_localization", "errors", "per_delta")
    )
    capsys.readouterr()
    assert run(monkeypatch, *common) == 2 and "needs --images" in capsys.readouterr().err
    assert run(monkeypatch, *common, "--images", tmp_path / "nowhere") == 2
    (tmp_path / "images" / "001.Bird0").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "001.Bird0" / "Bird_1.png")
    (tmp_path / "images" / "001.Bird0" / "Bird_2.png").write_bytes(b"no image")
    assert run(monkeypatch, *common, "--images", tmp_path / "images") == 2
    error = capsys.readouterr().err
    assert (
        "is 4x4 pixels, but image_sizes.txt says 40x30" in error
        and "cannot be read" in error
        and "the image is missing" in error
    )


@pytest.mark.slow
def test_every_map_method_from_the_command_line(cub, tmp_path, monkeypatch):
    for method in ("gradcam", "gradcam++", "layercam", "scorecam"):
        output = tmp_path / f"{method}.json"
        assert run(monkeypatch, *from_weights(cub, output, "--method", method, "--examples", 0)) == 0
        found = json.loads(output.read_text())
        assert (found["map_method"], found["cam_layer"], found["output_stride"]) == (method, "layer4", 32)


def test_classes_of_another_data_set(cub, tmp_path, monkeypatch, capsys):
    info = EncoderInfo("resnet10_32", 7, image_size=64)
    model = {f"encoder.{key}": value for key, value in create_encoder("resnet10_32", 7).state_dict().items()}
    save_torch(
        tmp_path / "seven.pt",
        {
            "format": "automix_transfer/1",
            "encoder": info.to_dict(),
            "encoders": {"encoder": "encoder."},
            "model": model,
        },
    )
    arguments = ("--dataset", "cub", "--root", cub, "--checkpoint", tmp_path / "seven.pt")
    arguments = (*arguments, "--image-size", 64, "--map-size", SIZE)
    assert run(monkeypatch, *arguments) == 2
    assert "7 classes, but the data set has 3" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--cam-class", "predicted", "--output", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["top1_accuracy"] is None


def write_maps(root, metadata, shape=(SIZE, SIZE), dtype=np.float64):
    for target in read_metadata(metadata).targets:
        path = root / f"{target.image_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(0).random(shape).astype(dtype))
    return path


def test_maps_of_other_images_are_mentioned(cub, tmp_path, monkeypatch, capsys):
    path = write_maps(tmp_path / "maps", cub / "metadata")
    np.save(path.with_name("another.npy"), np.zeros((SIZE, SIZE)))
    assert run(monkeypatch, *from_maps(cub, tmp_path / "maps", None)) == 0
    assert "note: 1 score maps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "device, word", [("banana", "is unknown"), ("cuda:99", "is not there"), ("meta", "is not there")]
)
def test_devices_that_are_not_there(cub, tmp_path, monkeypatch, capsys, device, word):
    assert run(monkeypatch, *from_weights(cub, tmp_path / "out.json", "--device", device)) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, word",
    [
        ("2 35 25 9 9", ""),
        ("2 50 3 9 9", "lies outside the image of 40x30"),
        pytest.param("2 5 5 0 4", "bounding_boxes.txt:2", id="2 5 5 0 4-positive"),
    ],
)
def test_boxes_of_the_native_layout(cub, tmp_path, monkeypatch, capsys, line, word):
    """One that sticks out is clipped, as a few of CUB's need; one that lies outside is an error, before
    anything is evaluated."""
    root = tmp_path / "cub"
    shutil.copytree(cub, root)
    boxes = (root / "bounding_boxes.txt").read_text().splitlines()
    (root / "bounding_boxes.txt").write_text(
        "\n".join(line if box.startswith("2 ") else box for box in boxes) + "\n"
    )
    if word:
        monkeypatch.setattr(BoxTask, "measure", lambda *_: pytest.fail("an image was evaluated"))
    assert run(monkeypatch, *from_weights(root, tmp_path / "out.json")) == (2 if word else 0)
    output = capsys.readouterr()
    assert (
        word in output.err
        if word
        else "note: 1 boxes of split test stick out of their images and were clipped" in output.out
    )


@pytest.mark.parametrize(
    "spoil, word",
    [
        (lambda path: path.unlink(), "lacks the score maps of 1 of 6"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged"),
        (lambda path: np.save(path, np.zeros((5, 5))), "5x5, expected 32x32"),
        (lambda path: np.save(path, np.zeros((SIZE, SIZE, 1))), "float array"),
        (lambda path: np.save(path, np.zeros((SIZE, SIZE), dtype=np.uint8)), "uint8"),
        (lambda path: np.save(path, np.full((SIZE, SIZE), np.nan)), "NaN or outside"),
        (lambda path: np.save(path, np.full((SIZE, SIZE), 1.5)), "NaN or outside"),
        (lambda path: np.save(path, np.array([[{}]]), allow_pickle=True), "run code"),
    ],
)
def test_bad_score_maps(cub, tmp_path, monkeypatch, capsys, spoil, word):
    spoil(write_maps(tmp_path, cub / "metadata"))
    if "NaN" not in word:  # whatever a header or a size says is found before the first image
        monkeypatch.setattr(BoxTask, "measure", lambda *_: pytest.fail("an image was evaluated"))
    assert run(monkeypatch, "--scoremaps", tmp_path, "--metadata", cub / "metadata", "--map-size", SIZE) == 2
    error = capsys.readouterr().err
    assert word in error and "Traceback" not in error


def test_raw_maps_of_any_size(cub, tmp_path, monkeypatch):
    write_maps(tmp_path / "maps", cub / "metadata", (7, 5), np.float32)
    arguments = ("--scoremaps", tmp_path / "maps", "--metadata", cub / "metadata", "--raw-maps")
    arguments = (*arguments, "--output", tmp_path / "out.json")  # of the default size
    assert run(monkeypatch, *arguments) == 0
    assert json.loads((tmp_path / "out.json").read_text())["map_size"] == 224


@pytest.mark.parametrize(
    "file, line, word",
    [
        ("image_ids.txt", "../../secret.png", "leads out"),
        ("image_ids.txt", "/etc/passwd", "leads out"),
        ("image_ids.txt", "001.Bird0/Bird_1.png", "stands twice"),
        ("image_ids.txt", "001.Bird0/unknown.png", "have no line"),
        ("class_labels.txt", "001.Bird0/Bird_1.png,one", "whole numbers"),
        ("class_labels.txt", "001.Bird0/Bird_1.png,-1", "whole numbers"),
        # a name a class: 999999999 would take all memory
        ("class_labels.txt", "001.Bird0/Bird_1.png,100000", "at most 99999"),
        ("class_labels.txt", "001.Bird0/Bird_9.png,0", "is not in image_ids.txt"),
        ("image_sizes.txt", "001.Bird0/Bird_1.png,40", "is not of the form"),
        ("image_sizes.txt", "001.Bird0/Bird_1.png,0,30", "at least 1"),
        ("localization.txt", "001.Bird0/Bird_1.png,9,9,3,20", "x0 <= x1"),
        ("localization.txt", "001.Bird0/Bird_1.png,50,1,90,20", "lies outside"),
        ("localization.txt", "001.Bird0/Bird_1.png,1,1,9000,20", "lies outside"),
        ("localization.txt", "001.Bird0/Bird_1.png,1,1,x,20", "is not a box"),
    ],
)
def test_bad_metadata_is_named_with_its_line(cub, tmp_path, file, line, word):
    for path in (cub / "metadata").iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    lines = (tmp_path / file).read_text().splitlines()
    if file in ("class_labels.txt", "image_sizes.txt") and "Bird_1" in line:
        lines = [old for old in lines if not old.startswith("001.Bird0/Bird_1.png")]
    (tmp_path / file).write_text("\n".join([*lines, line]) + "\n")
    with pytest.raises(UserError, match=word) as error:
        read_metadata(tmp_path)
    assert word == "have no line" or f"{file}:{len(lines) + 1}" in str(error.value)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ((), "--checkpoint FILE"),
        (("--scoremaps", "nowhere"), "--metadata"),
        (("--scoremaps", "nowhere", "--metadata", "nowhere"), "does not exist"),
        (("--checkpoint", "x.pt"), "--dataset"),
        (("--checkpoint", "x.pt", "--dataset", "cub", "--root", "nowhere"), "nowhere"),
        (("--checkpoint", "x.pt", "--interval", "0"), "--interval"),
        (("--checkpoint", "x.pt", "--threshold", "1"), "--threshold"),
        (("--checkpoint", "x.pt", "--output", "out.txt"), ".json"),
        (("--checkpoint", "x.pt", "--batch-size", "0"), "--batch-size"),
        (("--checkpoint", "x.pt", "--workers", "0"), "--workers"),
        (("--checkpoint", "x.pt", "--workers", "100000"), "--workers"),
        (("--checkpoint", "x.pt", "--examples", "-1"), "--examples"),
        (("--checkpoint", "x.pt", "--dataset", "cub", "--metadata", "m"), "not both"),
        (("--checkpoint", "x.pt", "--dataset", "cub"), "--dataset needs --root"),
        (("--scoremaps", "m", "--metadata", "m", "--raw-maps", "--save-maps", "./m"), "would be overwritten"),
        (
            ("--scoremaps", "m", "--metadata", "m", "--threshold-split", "train"),
            "--threshold-split needs --dataset",
        ),
        (
            ("--scoremaps", "m", "--metadata", "m", "--threshold-scoremaps", "m"),
            "--threshold-scoremaps needs --threshold-metadata",
        ),
        (
            ("--scoremaps", "m", "--metadata", "m", "--threshold-metadata", "m", "--threshold", "0.2"),
            "give one of them",
        ),
    ],
)
def test_bad_arguments(monkeypatch, capsys, tmp_path, arguments, word):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, need",
    [
        *(
            ((option, value), "checkpoint")
            for option, value in (
                ("encoder", "resnet50"),
                ("which", "q"),
                ("method", "gradcam"),
                ("map-layer", "layer4"),
                ("output-stride", "16"),
                ("cam-class", "predicted"),
                ("image-size", "64"),
                ("batch-size", "4"),
                ("device", "cpu"),
            )
        ),
        *(((option, "x"), "dataset") for option in ("root", "split")),
        (("examples", "2"), "output"),
        (("examples", "2", "--output", "x.json"), "images"),
    ],
)
def test_options_that_do_not_apply_to_score_maps_are_refused(
    cub, tmp_path, monkeypatch, capsys, option, need
):
    """Or the result would seem to be of a split or a method that it is not of."""
    monkeypatch.chdir(tmp_path)
    assert (
        run(monkeypatch, "--scoremaps", "m", "--metadata", cub / "metadata", f"--{option[0]}", *option[1:])
        == 2
    )
    error = capsys.readouterr().err
    assert (
        f"--{option[0]} " in error
        and f"needs --{need}" in error
        and f"leave --{option[0]} out" in error
        and error.count("\n") == 1
    )


def test_maps_of_two_pixels_have_a_centre_box(cub, tmp_path, monkeypatch):
    write_maps(tmp_path / "maps", cub / "metadata", (2, 2))
    assert run(monkeypatch, *from_maps(cub, tmp_path / "maps", tmp_path / "x.json", size=2)) == 0
    assert 0 <= numbers(tmp_path / "x.json")["center_box"]["MaxBoxAcc"] <= 100


def test_an_output_whose_name_is_too_long_is_one_line(cub, tmp_path, monkeypatch, capsys):
    write_maps(tmp_path / "maps", cub / "metadata", (2, 2))
    # with what is written beside it, shorter names than the longest do not fit
    for length in (300, 255, 246):
        output = tmp_path / ("x" * (length - len(".json")) + ".json")
        assert run(monkeypatch, *from_maps(cub, tmp_path / "maps", output, size=2)) == 2
        error = capsys.readouterr().err
        assert (
            "(File name too long)" in error and error.startswith("error: ") and error.count("error: ") == 1
        ), error


def test_options_of_score_maps_and_metadata_need_them(cub, tmp_path, monkeypatch, capsys):
    for option, need in (("raw-maps", "scoremaps"), ("images", "metadata"), ("masks", "metadata")):
        value = [] if option == "raw-maps" else ["x"]
        assert run(monkeypatch, *from_weights(cub, tmp_path / "x.json", f"--{option}", *value)) == 2
        assert f"--{option} needs --{need}" in capsys.readouterr().err
    write_maps(tmp_path / "maps", cub / "metadata")
    arguments = from_maps(cub, tmp_path / "maps", tmp_path / "x.json")
    assert run(monkeypatch, *arguments, "--masks", "nowhere") == 2
    assert "--masks nowhere" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--examples", 0) == 0
    # only what was used
    assert {"dataset", "root", "split", "which", "cam_class"}.isdisjoint(numbers(tmp_path / "x.json"))


def test_help_says_every_default(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    for default in ("cam)", "ground-truth)", "224)", "32)", "auto)", "8; 0: no page)"):
        assert f"(default {default}" in words


def test_pictures():
    image = np.full((30, 40, 3), 128, dtype=np.uint8)
    picture = overlay(image, np.eye(7), (2, 3, 20, 20), [[5, 5, 39, 29]], "IoU 0.5")
    assert picture.shape == (30, 40, 3) and picture.dtype == np.uint8 and image.max() == image.min() == 128
    assert (picture != image).any()
    plain = overlay(image, None, (2, 3, 20, 20), None)
    assert plain[3, 10].tolist() == [40, 220, 60] and plain[10, 30].tolist() == [128] * 3
    page = grid([picture] * 5, columns=2)
    assert page.shape == (3 * 34 + 4, 2 * 44 + 4, 3) and to_png(page).startswith(b"\x89PNG")
