"""Mistakes in configs and on the command line: one sentence with the key, before any training."""

import pytest
import yaml

from automix_transfer.errors import UserError
from detection.tiny import CONFIGS

FPN = CONFIGS / "embedded_R10_FPN.yaml"


@pytest.mark.parametrize(("overrides", "message"), [
    (["SOLVER.BASE_RL", "0.1"], "SOLVER.BASE_LR"),
    (["SOLVER.BASE_LR"], "pairs of KEY VALUE"),
    (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER must be of type int"),
    (["NOSUCH.KEY", "1"], "unknown config key NOSUCH.KEY"),
    (["SOLVER.MAX_ITER", "5", "--resume"], "--resume stands behind"),
    (["MODEL.BACKBONE.FREEZE_AT", "2"], "freeze random layers"),
    (["MODEL.RESNETS.NORM", "FrozenBN"], "no statistics to freeze"),
    (["MODEL.DEVICE", "cuda"], "--num-gpus 0"),
    (["SOLVER.AMP.ENABLED", "True"], "needs a GPU"),
    (["MODEL.RESNETS.DEPTH", "50"], "is for depths 10"),
    (["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"], "has no depth 10"),
])
def test_bad_overrides(overrides, message):
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match=message):
        load_config(FPN, ["MODEL.WEIGHTS", "", *overrides], num_gpus=0)


def test_training_from_scratch_has_to_be_asked_for():
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match="does not set MODEL.WEIGHTS"):
        load_config(FPN, [], num_gpus=0)


def test_more_gpus_than_there_are():
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match="this machine has"):
        load_config(FPN, ["MODEL.WEIGHTS", ""], num_gpus=4096)


@pytest.mark.parametrize(("text", "message"), [
    ("MODEL: [", "not a valid Detectron2 config"),
    ("- 1\n- 2\n", "not a valid Detectron2 config"),
    ("_BASE_: nowhere.yaml\n", "does not exist"),
    ("SOLVER: {IMS_PER_BATCH: 2}\nSEED: 1\nSOLVER: {MAX_ITER: 5}\n", "has the key 'SOLVER' twice in one mapping, at lines 1 and 3"),
    ("MODEL:\n  RESNETS:\n    DEPHT: 50\n", "did you mean MODEL.RESNETS.DEPTH"),
    ("MODEL: !!python/object/apply:os.system ['echo hostile']\n", "not a valid Detectron2 config"),
])
def test_bad_files(tmp_path, text, message):
    from automix_transfer.detection.config import load_config

    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "x.yaml", ["MODEL.WEIGHTS", ""], num_gpus=0)


def test_one_process_has_no_syncbn():
    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(CONFIGS / "voc_R50_FPN_24k.yaml", ["MODEL.WEIGHTS", ""], num_gpus=0)
    assert cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "BN" and cfg.MODEL.DEVICE == "cpu"


def test_plain_detectron2_reads_our_configs(tmp_path):
    """A run's config.yaml holds Detectron2's own keys only."""
    from detectron2.config import get_cfg

    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(FPN, ["MODEL.WEIGHTS", ""], num_gpus=0)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    plain = get_cfg()
    plain.merge_from_file(str(tmp_path / "config.yaml"))
    assert yaml.safe_load(plain.dump()) == yaml.safe_load(cfg.dump())  # tuples and lists are one there


def test_extra_norm_heads_are_registered_on_import():
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY

    from detection.tiny import detector

    assert "Res5ROIHeadsExtraNorm" in ROI_HEADS_REGISTRY
    model, _ = detector("embedded_R10_C4.yaml")
    assert type(model.roi_heads.res5.norm).__name__ == "BatchNorm2d"
    assert model.roi_heads.res5.norm.num_features == 256
