"""Losses on images that a detector is not trained on: the same for any number of processes, and no trace of
them in the training."""

import json
from itertools import pairwise

import pytest
import torch

from automix_transfer.errors import UserError
from tests.detection.resuming.test_began import start
from tests.detection.test_resume import FPN, arguments, weights
from tests.detection.tiny import QUICK, detector

LOSSES = {"val_loss_cls", "val_loss_box_reg", "val_loss_rpn_cls", "val_loss_rpn_loc"}


@pytest.fixture()
def losses_of(voc):
    """A fresh detector, and its losses, of all images or those of one of two processes."""
    from automix_transfer.detection import loader
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores import validation_loss
    from automix_transfer.signals import StopRequest

    model, cfg = detector("embedded_R10_FPN.yaml", *QUICK)
    cfg.DATASETS.TEST = register_folder(voc).test

    def measure(monkeypatch=None, share=slice(None), others=()):
        if monkeypatch is not None:
            monkeypatch.setattr(loader, "InferenceSampler", lambda count: range(count)[share])
            monkeypatch.setattr(validation_loss.comm, "all_gather", lambda found: [*others, found])
        return validation_loss.validation_losses(cfg, model, StopRequest())

    return model, measure


def test_processes_share_the_images_and_get_the_same(losses_of, monkeypatch):
    from automix_transfer.detection.scores import validation_loss

    model, measure = losses_of
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    model.roi_heads.eval()
    modes = [module.training for module in model.modules()]
    whole = measure()
    assert set(whole) == {"val_loss", *LOSSES}
    assert whole["val_loss"] == pytest.approx(sum(whole[key] for key in LOSSES))
    torch.manual_seed(99)
    kept = []
    monkeypatch.setattr(validation_loss.comm, "all_gather", lambda found: kept.append(found) or [found])
    monkeypatch.setattr(
        "automix_transfer.detection.loader.InferenceSampler", lambda count: range(count)[1::2]
    )
    part = measure()
    assert part != whole and [index for _, index, _ in kept[0]] == [1, 3]
    assert measure(monkeypatch, slice(0, None, 2), kept[:1]) == whole
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_a_training_with_it_has_the_bits_of_one_without(voc, tmp_path):
    from automix_transfer.detection import trainer

    options = [*QUICK, "SOLVER.MAX_ITER", "3", "TEST.EVAL_PERIOD", "1", "MODEL.RESNETS.NORM", "BN"]
    trainer.run(FPN, "", voc, tmp_path / "without", options, seed=1)
    options = [*options, "SEED", "1", "MODEL.WEIGHTS", "", "TEST.LOSS", "True"]
    start(voc, tmp_path / "with", *options, resume=False, best_metric="val_loss")
    a, b = (weights(tmp_path / name / "model_final.pth") for name in ("without", "with"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "LOSS: true" not in (tmp_path / "without" / "config.yaml").read_text()
    rows = [json.loads(line) for line in (tmp_path / "with" / "metrics.json").read_text().splitlines()]
    measured = [row["val_loss"] for row in rows if "val_loss" in row]
    assert len(measured) == 3 and all(one != other for one, other in pairwise(measured))
    best = json.loads((tmp_path / "with" / "best.json").read_text())
    assert (best["value"], best["iteration"]) == (min(measured), measured.index(min(measured)) + 1)
    found = json.loads((tmp_path / "with" / "results.json").read_text())["losses"]
    assert found["val_loss"] == measured[-1] and found.keys() == {"val_loss", *LOSSES}


def test_a_metric_that_is_not_measured_is_refused(voc, tmp_path):
    from automix_transfer.detection.trainer import prepare

    begin = ["MODEL.WEIGHTS", "", *QUICK]
    with pytest.raises(UserError, match=r"val_loss.*TEST\.LOSS"):
        prepare(arguments(voc, tmp_path, *begin, resume=False, best_metric="val_loss"))
    given = arguments(voc, tmp_path, *begin, "TEST.LOSS", "True", resume=False, best_metric="val_loss")
    assert prepare(given).TEST.LOSS
