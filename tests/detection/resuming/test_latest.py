"""Which checkpoint a detector goes on from, whatever a crash has left of last_checkpoint."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import get_cfg

from automix_transfer.detection.comparing.compare import refuse_others_answer
from automix_transfer.detection.resuming.began import refuse_other_folder
from automix_transfer.detection.resuming.checkpoints import best_before, check_disk, latest
from automix_transfer.detection.showing.predict import is_predictions
from automix_transfer.errors import UserError
from automix_transfer.io import write_json


@pytest.mark.parametrize("named", [b"", b"\0\0\0\0", b"\xff\xfe", b"model_0000009.pth\n", None])
def test_the_newest_that_loads_is_taken(tmp_path: Path, named: bytes | None) -> None:
    for iteration in (3, 7):
        state = {"iteration": iteration, "_trainer": {}}
        torch.save({"model": {}, "trainer": state}, tmp_path / f"model_{iteration:07d}.pth")
    (tmp_path / "model_0000009.pth").write_bytes(b"")
    if named is not None:
        (tmp_path / "last_checkpoint").write_bytes(named)
    found = latest(tmp_path)
    assert found is not None and found[0].name == "model_0000007.pth"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """The folder of a pretraining; a finished run whose checkpoints were removed. What a run leaves that was
    killed before its first checkpoint is begun anew."""
    (tmp_path / "config.yaml").write_text("MODEL: {}\nSOLVER: {}\n")
    refuse_other_folder(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json"):
        refuse_other_folder(tmp_path)
    (tmp_path / "began.json").write_text("{}")
    refuse_other_folder(tmp_path)
    for name, text in (("results.json", "{}"), ("config.yaml", "train: {}\n"), ("run.json", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            refuse_other_folder(tmp_path, resume=True)


def test_checkpoints_must_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = str(tmp_path), 100, 20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7 * 8 * 1000))
    check_disk(cfg, 1000)
    cfg.TEST.EVAL_PERIOD = 10  # and the best
    with pytest.raises(UserError, match=r"SOLVER\.CHECKPOINT_PERIOD"):
        check_disk(cfg, 1000)
    (tmp_path / "model_0000019.pth").write_bytes(bytes(8000))
    check_disk(cfg, 1000)


def test_an_answer_is_not_written_over_files_of_others(tmp_path: Path) -> None:
    """Of a comparison, or of predictions."""
    (tmp_path / "runs.csv").write_text("mine")
    run = tmp_path / "runs" / "ours" / "seed1"
    with pytest.raises(UserError, match=r"runs\.csv"):
        refuse_others_answer(tmp_path, [run])
    write_json(run / "inputs.json", {})
    refuse_others_answer(tmp_path, [run])
    write_json(tmp_path / "predictions.json", {"info": {"description": "detections of x with a score"}})
    assert is_predictions(tmp_path / "predictions.json")
    write_json(tmp_path / "predictions.json", {"info": {"description": "COCO 2017"}})
    assert not is_predictions(tmp_path / "predictions.json")


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ('{"metric": "bbox/AP", "value": 7.5}', 7.5),
        ('{"metric": "bbox/AP50", "value": 7.5}', -math.inf),
        ('{"metric": "bbox/AP", "value": null}', -math.inf),
        ("", -math.inf),
        ("[]", -math.inf),
    ],
)
def test_a_damaged_record_of_the_best_ends_no_training(tmp_path: Path, text: str, best: float) -> None:
    (tmp_path / "best.json").write_text(text)
    assert best_before(tmp_path / "best.json", "bbox/AP") == best
