"""What a user gets wrong, through the script: one sentence, exit code 2, before anything is trained."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.detection.tiny import CONFIGS, QUICK, write_backbone, write_voc

FPN = str(CONFIGS / "embedded_R10_FPN.yaml")


class Hostile:
    def __reduce__(self):
        return (print, ("hostile code ran",))


def refused(result, *words):
    code, out, error, files = result
    assert "hostile code ran" not in out + error
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert code == 2 and "Traceback" not in error and len(said) == 1, error
    assert error.endswith(said[0] + "\n") and len(said[0]) < 700, error
    assert all(word in error for word in words), error
    assert not any(name.endswith(".pth") or name == "metrics.json" for name in files), files


def write_bad_weights(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.pkl" for name in ("hostile", "other", "damaged", "prefixed", "basic")}
    files["hostile"].write_bytes(pickle.dumps({"model": {"x": Hostile()}}))
    files["damaged"].write_bytes(b"\x80\x04 not a pickle")
    write_backbone(files["other"], {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    write_backbone(files["prefixed"], {"module.stem.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    write_backbone(
        files["basic"],
        {"stem.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)},
        "automix_transfer",
        {"MODEL": {"RESNETS": {"DEPTH": 18, "NUM_GROUPS": 1}}},
    )
    return files


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("hostile", ["wants to run code", "refused"]),
        ("damaged", ["damaged"]),
        ("other", ["does not fit the backbone", "keys match", "export"]),
        ("prefixed", ["start with 'module.'", "export"]),
        ("basic", ["MODEL.RESNETS.DEPTH is 10", "trained with 18"]),
    ],
)
def test_weights(script, voc, tmp_path, weights, words):
    file = write_bad_weights(tmp_path)[weights]
    refused(
        script("--config-file", FPN, "--num-gpus", "0", "--data-root", voc, *QUICK, "MODEL.WEIGHTS", file),
        *words,
    )


def test_a_config_whose_name_is_too_long(script):
    refused(script("--config-file", "x" * 300, "--num-gpus", "0"), "x" * 300, "File name too long")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-gpus", "4096"], ["--num-gpus 4096", "this machine has"]),
        (["--num-gpus", "-1"], ["--num-gpus -1"]),
        (["--num-gpus", "0", "--num-machines", "2"], ["needs GPUs"]),
        (["--num-gpus", "0", "--machine-rank", "3"], ["--machine-rank 3"]),
        (["--num-gpus", "0", "--eval-only"], ["--eval-only", "model_final.pth"]),
        (["--num-gpus", "0", "--eval-only", "--resume"], ["holds no checkpoint"]),
        (["--num-gpus", "0", "--coco-evaluator", "nosuch"], ["nosuch"]),
        (
            ["--num-gpus", "0", "--best-metric", "nope"],
            ["--best-metric nope", "bbox/AP50", "bbox_area/AP", "-square for a class"],
        ),
        (["--num-gpus", "0", "--best-metric", "bbox/AP50-squere"], ["did you mean bbox/AP50-square?"]),
        (["--num-gpus", "0", "--best-metric", "segm/AP"], ["--best-metric segm/AP"]),
    ],
)
def test_options(script, voc, options, words):
    refused(script("--config-file", FPN, *options, "--data-root", voc, *QUICK, "MODEL.WEIGHTS", ""), *words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["SOLVER.BASE_RL", "1"], ["SOLVER.BASE_LR"]),
        (["SOLVER.IMS_PER_BATCH", "0"], ["SOLVER.IMS_PER_BATCH"]),
        (["SEED", "-1"], ["SEED"]),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "7"], ["NUM_CLASSES is 7", "2 classes"]),
        (["MODEL.BACKBONE.NAME", "timm_fpn/resnet1"], ["timm has no network 'resnet1'"]),
        (["MODEL.MASK_ON", "True"], ["segmentations"]),
        (
            ["MODEL.WEIGHTS", "detectron2://ImageNetPretrained/MSRA/R-50.pkl"],
            ["is an address", "download the file"],
        ),
        (["DATALOADER.SAMPLER_TRAIN", "NoSampler"], ["NoSampler is unknown"]),
        (["SOLVER.MAX_ITER", "0"], ["SOLVER.MAX_ITER is 0", "--eval-only"]),
        (["MODEL.FPN.IN_FEATURES", "['res9']"], ["cannot build the model", "res9", "IN_FEATURES"]),
    ],
)
def test_settings(script, voc, overrides, words):
    refused(
        script(
            "--config-file",
            FPN,
            "--num-gpus",
            "0",
            "--data-root",
            voc,
            *QUICK,
            "MODEL.WEIGHTS",
            "",
            *overrides,
        ),
        *words,
    )


def test_data(script, voc, tmp_path):
    def run(*options):
        return script("--config-file", FPN, "--num-gpus", "0", *options, *QUICK, "MODEL.WEIGHTS", "")

    refused(run(), "names no data set", "--data-root")
    (tmp_path / "names.txt").write_text("square\n")
    code, _, error, files = run("--data-root", voc, "--class-names", tmp_path / "names.txt")
    # a line for each place
    assert code == 2 and "circle" in error and "Traceback" not in error and files == []
    root = write_voc(tmp_path / "VOC2007")
    (root / "ImageSets" / "Main" / "test.txt").write_text("")
    code, _, error, files = run("--data-root", root)
    assert code == 2 and "empty" in error and files == []
    refused(run("--class-names", tmp_path / "names.txt", "DATASETS.TEST", "('x',)"), "--class-names")


def test_folders_that_cannot_be_written(script, voc, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "run", Path("/proc/automix_run")):
        result = script(
            "--config-file",
            FPN,
            "--num-gpus",
            "0",
            "--data-root",
            voc,
            *QUICK,
            "MODEL.WEIGHTS",
            "",
            output=output,
        )
        refused(result, "OUTPUT_DIR")


def test_detectors_that_do_not_fit(script, voc, tmp_path):
    torch.save(
        {"model": {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}},
        tmp_path / "model_final.pth",
    )
    refused(
        script(
            "--config-file",
            FPN,
            "--num-gpus",
            "0",
            "--data-root",
            voc,
            "--eval-only",
            *QUICK,
            "MODEL.WEIGHTS",
            tmp_path / "model_final.pth",
        ),
        "not a detector of this config",
        "missing",
    )
