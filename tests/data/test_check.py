"""The check says what a data set holds, and everything that is wrong with it, with exit code 2."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from automix_transfer.command_line import command
from automix_transfer.data.check import check_data, check_root, main
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError
from tests.data import trees

MAKERS = {
    "imagefolder": trees.folders,
    "tiny_imagenet": trees.tiny,
    "cub": trees.cub,
    "aircraft": trees.aircraft,
}


@pytest.mark.parametrize("dataset", MAKERS)
def test_a_sound_data_set(dataset, tmp_path, capsys):
    MAKERS[dataset](tmp_path / "d")
    assert main(["--dataset", dataset, "--root", str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "every image decodes" in said and "train: " in said and "modes: RGB" in said
    assert ("boxes: " in said) == (dataset != "imagefolder")


def test_counts_sizes_modes_and_turned_images(tmp_path):
    root = trees.folders(tmp_path)
    exif = trees.Image.Exif()
    exif[0x0112] = 6
    trees.save_image(root / "train" / "class_0" / "turned.jpg", (20, 12), exif=exif)
    trees.Image.new("L", (16, 12)).save(root / "train" / "class_0" / "gray.png")
    report = str(check_root(DataConfig(root=str(root))))
    assert "train: 14 images of 3 classes (a class: min 4, median 4, max 6)" in report
    assert (
        "16 to 20 wide, 12 to 12 high" in report and "RGB 13, L 1" in report and "rotation flag: 1" in report
    )


def test_every_bad_image_is_named_with_exit_code_2(tmp_path, capsys):
    root = trees.folders(tmp_path, images=30)
    for number in range(25):
        (root / "train" / "class_0" / f"0_{number}.png").write_bytes(b"")
    assert main(["--dataset", "imagefolder", "--root", str(root)]) == 2
    output = capsys.readouterr()
    assert output.out.count("is empty (0 bytes)") == 20 and "25 problem(s)" in output.err
    with pytest.raises(UserError) as info:
        check_data(DataConfig(root=str(root)))
    assert (
        "25 problems" in str(info.value)
        and "and 5 more" in str(info.value)
        and len(str(info.value).splitlines()) == 22
    )


def test_skip_reports_the_bad_ones_and_goes_on(tmp_path, capsys):
    root = trees.folders(tmp_path)
    (root / "val" / "class_0" / "0_1.png").write_bytes(b"x")
    report = check_data(DataConfig(root=str(root), on_bad_image="skip"))
    assert "1 bad images" in str(report) and "0_1.png is not an image" in capsys.readouterr().err


def test_the_first_list_problems_are_printed_and_all_written(tmp_path, capsys):
    root = trees.cub(tmp_path / "d", classes=10, images=6)
    path = root / "image_class_labels.txt"
    path.write_text(path.read_text().replace("\n", " 1\n"))
    (root / "classes.txt").write_text((root / "classes.txt").read_text() + "1 again\n")
    words = ["--dataset", "cub", "--root", str(root), "--output", str(tmp_path / "all.txt")]
    assert main(words) == 2
    said = capsys.readouterr().out
    assert said.count("image_class_labels.txt:") == 21 and "and 40 more" in said and "id '1'" in said
    assert (tmp_path / "all.txt").read_text().count("image_class_labels.txt:") == 61
    assert main(words) == 2  # its own list is written again
    (tmp_path / "all.txt").write_text("somebody's")
    with pytest.raises(UserError, match=r"all\.txt"):
        main(words)


def test_boxes_outside_are_errors_and_boxes_that_stick_out_are_notes(tmp_path):
    root = trees.cub(tmp_path / "d")
    trees.edit_line(root / "bounding_boxes.txt", 1, "1 10.0 2.0 9.0 4.0")
    config = DataConfig(dataset="cub", root=str(root), val_split="test")
    assert "note: 1 boxes reach outside" in str(check_data(config))
    trees.edit_line(root / "bounding_boxes.txt", 1, "1 40.0 2.0 9.0 4.0")
    for policy in ("fail", "skip"):
        config.on_bad_image = policy
        with pytest.raises(UserError, match=r"box \(40, 2, 49, 6\) of image .*_0.jpg"):
            check_data(config)


def test_a_leak_between_splits_is_told(tmp_path):
    root = trees.folders(tmp_path)
    shutil.copy(root / "train" / "class_0" / "0_0.png", root / "val" / "class_0" / "copied.png")
    assert "1 images of val are byte for byte in train too" in str(check_root(DataConfig(root=str(root))))


def test_lists_only_reads_no_image(tmp_path, capsys):
    root = trees.folders(tmp_path)
    (root / "train" / "class_0" / "0_0.png").write_bytes(b"")
    assert main(["--dataset", "imagefolder", "--root", str(root), "--lists-only"]) == 0
    assert "images not read" in capsys.readouterr().out


def test_low_images_with_a_banner_to_cut(tmp_path, capsys):
    root = trees.aircraft(tmp_path / "d")
    trees.save_image(root / "data" / "images" / "0000001.jpg", (30, 18))
    assert main(["--dataset", "aircraft", "--root", str(root), "--split", "train"]) == 2
    assert "data.crop_banner=false" in capsys.readouterr().out
    assert main(["--dataset", "aircraft", "--root", str(root), "--split", "train", "--keep-banner"]) == 0


def test_help_teaches_the_layouts(capsys):
    with pytest.raises(SystemExit) as info:
        main(["--help"])
    said = capsys.readouterr().out
    assert info.value.code == 0 and all(
        word in said for word in ("wnids.txt", "bounding_boxes.txt", "variants.txt", "examples:")
    )


@pytest.mark.slow
def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path):
    words = command("data check", "--dataset", "cub", "--root", str(tmp_path / "no"))
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (
        result.returncode == 2
        and result.stderr.startswith("error: data root")
        and result.stderr.count("\n") == 1
    )


def test_real_cub(shared_data):
    config = DataConfig(dataset="cub", root=str(shared_data("cub50")), limit_per_class=3)
    report = check_root(config, ["train"])
    assert (
        not report.problems
        and "every image decodes" in str(report)
        and "train: 150 images of 50 classes" in str(report)
    )
