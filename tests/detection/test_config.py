"""Mistakes in configs and on the command line: one sentence with the key, before any training."""

import pytest
import yaml

from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS

FPN = CONFIGS / "embedded_R10_FPN.yaml"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
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
        (["SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH is 0; give a number from 1"),
        (["SOLVER.MAX_ITER", "-5"], "SOLVER.MAX_ITER is -5"),
        (["SOLVER.CHECKPOINT_PERIOD", "0"], "SOLVER.CHECKPOINT_PERIOD is 0"),
        (["SOLVER.WARMUP_ITERS", "-1"], "SOLVER.WARMUP_ITERS is -1"),
        (["SOLVER.BASE_LR", "-0.1"], "SOLVER.BASE_LR is -0.1"),
        (["SOLVER.STEPS", "('a',)"], "SOLVER.STEPS is"),
        (["SOLVER.STEPS", "(2,1)"], "SOLVER.STEPS is .*ascending order"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "foo"],
            "SOLVER.LR_SCHEDULER_NAME foo is unknown; use one of WarmupMultiStepLR",
        ),
        (["INPUT.RANDOM_FLIP", "x"], "INPUT.RANDOM_FLIP x is unknown"),
        (["MODEL.RPN.PRE_NMS_TOPK_TRAIN", "-1"], "MODEL.RPN.PRE_NMS_TOPK_TRAIN is -1"),
        (["OUTPUT_DIR", "a\0b"], "OUTPUT_DIR holds a null character"),
        (["MODEL.KEYPOINT_ON", "True"], "MODEL.KEYPOINT_ON"),
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "MODEL.META_ARCHITECTURE"),
        (["MODEL.RPN.BBOX_REG_LOSS_TYPE", "x"], "MODEL.RPN.BBOX_REG_LOSS_TYPE x is unknown"),
        (["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "100000"], "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"),
        (["SOLVER.WARMUP_METHOD", "x"], "SOLVER.WARMUP_METHOD x is unknown; use one of linear"),
        (["DATALOADER.NUM_WORKERS", "-1"], "DATALOADER.NUM_WORKERS is -1"),
        (["SEED", "4294967296"], "SEED is 4294967296"),
        (["MODEL.META_ARCHITECTURE", "RCNN"], "MODEL.META_ARCHITECTURE RCNN is unknown"),
        (["MODEL.BACKBONE.NAME", "build_resnet_fpn_bakbone"], "did you mean build_resnet_fpn_backbone"),
        (
            ["MODEL.BACKBONE.NAME", "timm_fpn/resnet18.a1_in1k"],
            "is unknown; did you mean .*timm_fpn/resnet18",
        ),
        (["MODEL.ROI_HEADS.NAME", "foo"], "MODEL.ROI_HEADS.NAME foo is unknown"),
        *(
            ([key, value], f"{key} ")
            for key, value in (
                ("SOLVER.IMS_PER_BATCH", "65536"),
                ("SOLVER.MAX_ITER", "2000000000"),
                ("SOLVER.GAMMA", "-1.0"),
                ("SOLVER.BASE_LR", "1e300"),
                ("TEST.PRECISE_BN.NUM_ITER", "1000000000"),
                ("TEST.DETECTIONS_PER_IMAGE", "0"),
                ("MODEL.RPN.POST_NMS_TOPK_TEST", "1000000000"),
                ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "-1"),
                ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "2.0"),
                ("MODEL.RPN.IOU_THRESHOLDS", "[5,6]"),
                ("MODEL.RPN.BBOX_REG_WEIGHTS", "()"),
                ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(1,)"),
                ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "-7"),
                ("MODEL.ANCHOR_GENERATOR.SIZES", "[['a']]"),
                ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0]]"),
                ("MODEL.FPN.OUT_CHANNELS", "0"),
                ("MODEL.PIXEL_STD", "[0,0,0]"),
                ("INPUT.MIN_SIZE_TRAIN", "()"),
                ("INPUT.MIN_SIZE_TRAIN", "(-800,)"),
                ("INPUT.MAX_SIZE_TRAIN", "1"),
                ("INPUT.FORMAT", "XYZ"),
            )
        ),
        (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[5.0,5.0]"], "INPUT.CROP.SIZE"),
        (["MODEL.RESNETS.NORM", "foo"], "MODEL.RESNETS.NORM foo is unknown; use one of BN"),
        (["MODEL.FPN.NORM", "foo"], "MODEL.FPN.NORM foo is unknown"),
        *(
            (["SEED", "1", key, "None"], f"{key} must be of type {kind}, not NoneType")
            for key, kind in (
                ("MODEL.WEIGHTS", "str"),
                ("OUTPUT_DIR", "str"),
                ("SEED", "int"),
                ("MODEL.BACKBONE.NAME", "str"),
                ("SOLVER.IMS_PER_BATCH", "int"),
                ("SOLVER.BASE_LR", "float"),
                ("SOLVER.MAX_ITER", "int"),
                ("MODEL", "CfgNode"),
            )
        ),
    ],
)
def test_bad_overrides(overrides, message):
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match=message):
        load_config(FPN, ["MODEL.WEIGHTS", "", *overrides], num_gpus=0)


def test_values_that_look_odd_and_are_none_the_less_right():
    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(
        FPN,
        [
            "MODEL.WEIGHTS",
            "",
            "SOLVER.WEIGHT_DECAY_BIAS",
            "0.1",
            "SOLVER.WEIGHT_DECAY_BIAS",
            "None",
            "SOLVER.STEPS",
            "()",
            "SOLVER.WARMUP_ITERS",
            "0",
            "SOLVER.MAX_ITER",
            "0",
            "MODEL.FPN.NORM",
            "GN",
        ],
        0,
    )
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS is None and cfg.SOLVER.STEPS == () and cfg.SOLVER.MAX_ITER == 0


def test_training_from_scratch_has_to_be_asked_for():
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match="does not set MODEL.WEIGHTS"):
        load_config(FPN, [], num_gpus=0)


def test_more_gpus_than_there_are():
    from automix_transfer.detection.config import load_config

    with pytest.raises(UserError, match="this machine has"):
        load_config(FPN, ["MODEL.WEIGHTS", ""], num_gpus=4096)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: [", "x.yaml is not valid YAML at line 1"),
        ("- 1\n- 2\n", "x.yaml must be a mapping"),
        ("_BASE_: nowhere.yaml\n", "does not exist"),
        pytest.param(
            "SOLVER: {IMS_PER_BATCH: 2}\nSEED: 1\nSOLVER: {MAX_ITER: 5}\n",
            "at line 3 .*SOLVER",
            id="SOLVER: {IMS_PER_BATCH: 2}\nSEED: 1\nSOLVER: {MAX_ITER: 5}\n"
            "-has the key 'SOLVER' twice in one mapping, at lines 1 and 3",
        ),
        ("_BASE_: .\n", "could not be read .*directory"),
        ("MODEL:\n", "MODEL must be of type CfgNode, not NoneType"),
        ("MODEL:\n  RESNETS:\n    DEPHT: 50\n", "did you mean MODEL.RESNETS.DEPTH"),
        ("MODEL: !!python/object/apply:os.system ['echo hostile']\n", "x.yaml .*at line 1"),
        ("_BASE_: https://example.org/x.yaml\n", "x.yaml: _BASE_ is https"),
        ("_BASE_: detectron2://x.yaml\n", "x.yaml: _BASE_ is detectron2"),
        ("_BASE_: x.yaml\n", "x.yaml is based on itself"),
        ("_BASE_: [3]\n", "x.yaml: _BASE_ must be"),
        ("MODEL: {LOAD_PROPOSALS: true}\n", "MODEL.LOAD_PROPOSALS"),
        ("DATASETS: {PROPOSAL_FILES_TRAIN: [x.pkl]}\n", "DATASETS.PROPOSAL_FILES"),
        ("DATASETS: {PROPOSAL_FILES_TEST: ['https://example.org/x.pkl']}\n", "DATASETS.PROPOSAL_FILES"),
        ("OUTPUT_DIR: s3://x/y\n", "OUTPUT_DIR s3://x/y"),
        ("SOLVER: {BASE_LR: .inf}\n", "SOLVER.BASE_LR"),
        ("SOLVER: {GAMMA: .nan}\n", "SOLVER.GAMMA"),
        ("INPUT: {MIN_SIZE_TRAIN: [1000000]}\n", "INPUT.MIN_SIZE_TRAIN"),
        ("MODEL: {ROI_BOX_HEAD: {NUM_CONV: 100000000}}\n", "MODEL.ROI_BOX_HEAD.NUM_CONV"),
        (f"MODEL: {{ANCHOR_GENERATOR: {{SIZES: [{[1] * 1000}]}}}}\n", "MODEL.ANCHOR_GENERATOR.SIZES"),
    ],
)
def test_bad_files(tmp_path, text, message):
    from automix_transfer.detection.config import load_config

    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "x.yaml", ["MODEL.WEIGHTS", ""], num_gpus=0)


def test_text_is_taken_as_typed():
    from automix_transfer.detection.config import load_config

    for text in ("2024_01", "010", "a: b", "x #2", "'q'", "[1]"):
        cfg, _ = load_config(FPN, ["MODEL.WEIGHTS", "", "OUTPUT_DIR", text], num_gpus=0)
        assert text == cfg.OUTPUT_DIR
    cfg, _ = load_config(FPN, ["MODEL.WEIGHTS", "", "SOLVER.STEPS", "(1,2)", "DATASETS.TEST", "('x',)"], 0)
    assert (cfg.SOLVER.STEPS, cfg.DATASETS.TEST) == ((1, 2), ("x",))


def test_an_address_that_the_command_line_replaces_is_no_address(tmp_path):
    from automix_transfer.detection.config import load_config

    (tmp_path / "zoo.yaml").write_text(f"_BASE_: {FPN}\nMODEL: {{WEIGHTS: 'detectron2://R-50.pkl'}}\n")
    cfg, _ = load_config(tmp_path / "zoo.yaml", ["MODEL.WEIGHTS", ""], num_gpus=0)
    assert cfg.MODEL.WEIGHTS == ""
    with pytest.raises(UserError, match="MODEL.WEIGHTS detectron2://"):
        load_config(tmp_path / "zoo.yaml", [], num_gpus=0)


def test_values_of_thousands_of_digits_are_refused():
    from automix_transfer.detection.config import load_config

    for value in ("9" * 5000, "9" * 900, "(" * 900, "+" * 900 + "1"):
        with pytest.raises(UserError, match="SOLVER.MAX_ITER") as caught:
            load_config(FPN, ["MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", value], num_gpus=0)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.ROI_BOX_HEAD.FC_DIM", "90000"], "MODEL"),
        (["MODEL.RPN.CONV_DIMS", "[0]"], "MODEL"),
        (
            [
                *("MODEL.ANCHOR_GENERATOR.SIZES", f"[[{'32,' * 200}]]"),
                *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.5,1.0]]"),
            ],
            "MODEL.ANCHOR_GENERATOR.SIZES",
        ),
        (
            [
                *("SOLVER.IMS_PER_BATCH", "4096", "INPUT.MIN_SIZE_TRAIN", "(1333,)"),
                *("INPUT.MAX_SIZE_TRAIN", "1333"),
            ],
            "SOLVER.IMS_PER_BATCH 4096",
        ),
        (["MODEL.FPN.OUT_CHANNELS", "-4"], "MODEL.FPN.OUT_CHANNELS"),
    ],
)
def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(monkeypatch, overrides, message):
    from automix_transfer.detection.config import load_config
    from automix_transfer.detection.networks import memory

    monkeypatch.setattr(memory, "device_memory", lambda device: 64 << 30)
    with pytest.raises(UserError, match=message):
        memory.check_size(load_config(FPN, ["MODEL.WEIGHTS", "", *overrides], num_gpus=0)[0], training=True)
    memory.check_size(load_config(FPN, ["MODEL.WEIGHTS", ""], num_gpus=0)[0], training=True)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ("MODEL: {LOAD_PROPOSALS: true}", "MODEL.LOAD_PROPOSALS"),
        ("DATASETS: {PROPOSAL_FILES_TRAIN: [x.pkl]}", "DATASETS.PROPOSAL_FILES"),
        ("MODEL: {RESNETS: 3}", "MODEL.RESNETS"),
        ("SOLVER: {STEPS: x}", "SOLVER.STEPS"),
        ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR"),
    ],
)
def test_a_run_to_be_resumed_is_checked_as_a_config_is(tmp_path, saved, message):
    from automix_transfer.detection.config import load_config

    (tmp_path / "config.yaml").write_text(saved)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(UserError, match=message):
        load_config(FPN, ["OUTPUT_DIR", str(tmp_path)], num_gpus=0, resume=True)


def test_a_batch_of_none_in_the_file(tmp_path):
    from automix_transfer.detection.config import load_config

    (tmp_path / "x.yaml").write_text("SOLVER:\n  IMS_PER_BATCH: 0\n  REFERENCE_WORLD_SIZE: 8\n")
    with pytest.raises(UserError, match="does not divide SOLVER.IMS_PER_BATCH 0"):
        load_config(tmp_path / "x.yaml", ["MODEL.WEIGHTS", "", "SOLVER.IMS_PER_BATCH", "2"], num_gpus=0)


def test_one_process_has_no_syncbn():
    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(CONFIGS / "voc_R50_FPN_24k.yaml", ["MODEL.WEIGHTS", ""], num_gpus=0)
    assert cfg.MODEL.RESNETS.NORM == cfg.MODEL.FPN.NORM == "BN" and cfg.MODEL.DEVICE == "cpu"


def test_plain_detectron2_reads_our_configs(tmp_path):
    """A run's config.yaml holds Detectron2's own keys only."""
    from detectron2.config import get_cfg

    from automix_transfer.detection.config import load_config, plain

    cfg, _ = load_config(FPN, ["MODEL.WEIGHTS", ""], num_gpus=0)
    (tmp_path / "config.yaml").write_text(plain(cfg))
    theirs = get_cfg()
    theirs.merge_from_file(str(tmp_path / "config.yaml"))
    found = yaml.safe_load(theirs.dump())
    del found["MODEL"]["TIMM"]  # of this package, whose import adds it
    assert found == yaml.safe_load(plain(cfg))  # tuples and lists are one there


def test_extra_norm_heads_are_registered_on_import():
    from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY

    from tests.detection.tiny import detector

    assert "Res5ROIHeadsExtraNorm" in ROI_HEADS_REGISTRY
    model, _ = detector("embedded_R10_C4.yaml")
    assert type(model.roi_heads.res5.norm).__name__ == "BatchNorm2d"
    assert model.roi_heads.res5.norm.num_features == 256
