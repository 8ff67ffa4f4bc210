"""Every recipe that we ship: its head is complete, its numbers are the protocol's, its schedule scales, and
its model is built."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS, QUICK, write_coco_masks

NAMES = sorted(path.name for path in Path(CONFIGS).glob("[a-z]*.yaml"))
RECIPES = [name for name in NAMES if not name.startswith("embedded")]
SCHEDULES = {"24k": ((18000, 22000), 24000), "1x": ((60000, 80000), 90000), "2x": ((120000, 160000), 180000)}


def load(name, *overrides, num_gpus=0):
    from automix_transfer.detection.config import load_config

    return load_config(CONFIGS / name, ["MODEL.WEIGHTS", "", *overrides], num_gpus=num_gpus)[0]


def unscaled(name):
    return load(name, "SOLVER.REFERENCE_WORLD_SIZE", "0")


def test_the_set_is_complete():
    wanted = {f"voc_{net}_C4_24k" for net in ("R50", "R101", "RX50", "RX101", "WRN50")}
    wanted |= {f"voc_{net}_FPN_24k" for net in ("R18", "R34", "R50", "R101", "RX50", "RX101")}
    wanted |= {f"voc_{net}_FPN_24k" for net in ("ConvNeXtT", "SwinT", "DeiTS")}
    wanted |= {"coco_DeiTS_FPN_1x", "coco_ViTB_FPN_100e_mask"}
    wanted |= {f"coco_{net}_{head}_2x" for net in ("R50", "R101", "RX50", "RX101") for head in ("C4", "FPN")}
    wanted |= {f"coco_R50_{head}_{rest}" for head in ("C4", "FPN") for rest in ("1x", "1x_mask", "2x_mask")}
    wanted |= {f"coco_{net}_FPN_{rest}" for net in ("ConvNeXtT", "SwinT") for rest in ("1x", "1x_mask")}
    wanted |= {f"coco_{net}_FPN_{rest}" for net in ("R18", "R34") for rest in ("1x", "2x")}
    assert {f"{name}.yaml" for name in wanted} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_head(name):
    lines = [line for line in (CONFIGS / name).read_text().splitlines() if line.startswith("#")]
    head = "\n".join(lines)
    assert all(
        re.search(rf"^# {word} ", head, re.MULTILINE) for word in ("Expect", "Hardware", "Time", "Command")
    )
    assert (
        "Table 7" in lines[0]
        and f"--config-file {Path(name).stem} " in head
        and "MODEL.WEIGHTS" in head
        and "--num-gpus" in head
    )
    assert ("Mask R-CNN" if "mask" in name else "Faster R-CNN") in lines[0]


def test_numbers_to_expect():
    voc, coco, mask = (
        (CONFIGS / name).read_text()
        for name in ("voc_R50_C4_24k.yaml", "coco_R50_C4_2x.yaml", "coco_R50_C4_2x_mask.yaml")
    )
    assert all(number in voc for number in ("81.3", "53.5", "58.8", "0.2 / 0.2 / 0.4", "81.0", "82.4"))
    assert all(number in coco for number in ("38.1", "59.1", "41.8", "38.6")) and "40.0" in mask


@pytest.mark.parametrize("name", [name for name in RECIPES if "100e" not in name])
def test_protocol(name):
    cfg = unscaled(name)
    steps, length = SCHEDULES[name.removesuffix(".yaml").removesuffix("_mask").split("_")[-1]]
    assert (tuple(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH) == (steps, length, 16)
    sides = list(range(480, 801, 32)) if name.startswith("voc") else list(range(640, 801, 32))
    assert (list(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MIN_SIZE_TEST) == (sides, 800)
    assert (
        cfg.MODEL.BACKBONE.FREEZE_AT == 0
        and cfg.MODEL.RESNETS.NORM == "BN"
        and cfg.MODEL.MASK_ON == ("mask" in name)
    )
    assert (
        cfg.INPUT.FORMAT == "RGB"
        and not cfg.MODEL.RESNETS.STRIDE_IN_1X1
        and list(cfg.MODEL.PIXEL_STD) == [58.395, 57.12, 57.375]
    )
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == (20 if name.startswith("voc") else 80)
    if name.startswith("voc"):
        assert cfg.SOLVER.WARMUP_ITERS == 100 and list(cfg.DATASETS.TEST) == ["voc_2007_test"]
        assert list(cfg.DATASETS.TRAIN) == ["voc_2007_trainval", "voc_2012_trainval"]
    if "_C4_" in name:
        assert (
            cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm"
            and cfg.TEST.PRECISE_BN.ENABLED
            and cfg.SOLVER.BASE_LR == 0.02
        )
        assert (cfg.MODEL.RPN.PRE_NMS_TOPK_TEST, cfg.MODEL.RPN.POST_NMS_TOPK_TEST) == (6000, 1000)


def test_vitdets_recipe():
    """Detectron2's mask_rcnn_vitdet_b_100ep, but for what its release 0.6 does not have."""
    cfg = unscaled("coco_ViTB_FPN_100e_mask.yaml")
    solver, text = cfg.SOLVER, (CONFIGS / "coco_ViTB_FPN_100e_mask.yaml").read_text()
    assert (tuple(solver.STEPS), solver.MAX_ITER, solver.WARMUP_ITERS) == ((163889, 177546), 184375, 250)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (64, 1e-4, 0.1)
    assert (solver.WEIGHT_DECAY_NORM, solver.WEIGHT_DECAY_BIAS, solver.WARMUP_FACTOR) == (0, None, 0.001)
    assert dict(cfg.MODEL.TIMM) == {"IMAGE_SIZE": 0, "WINDOW": 14, "LAYER_DECAY": 0.7, "OPTIMIZER": "AdamW"}
    assert cfg.MODEL.MASK_ON and cfg.INPUT.MIN_SIZE_TEST == cfg.INPUT.MAX_SIZE_TEST == 1024
    assert "51.6" in text and "45.9" in text and "mask_rcnn_vitdet_b_100ep" in text


@pytest.mark.parametrize(
    "name", ["voc_R50_C4_24k.yaml", "coco_R50_FPN_2x_mask.yaml", "coco_SwinT_FPN_1x.yaml"]
)
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_schedule_scales(name, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    full, cfg = unscaled(name), load(name, num_gpus=gpus)
    share = 8 // gpus
    assert cfg.SOLVER.IMS_PER_BATCH * share == 16 and cfg.SOLVER.BASE_LR * share == pytest.approx(
        full.SOLVER.BASE_LR
    )
    assert (
        cfg.SOLVER.MAX_ITER == full.SOLVER.MAX_ITER * share
        and cfg.SOLVER.WARMUP_ITERS == full.SOLVER.WARMUP_ITERS * share
    )
    assert tuple(cfg.SOLVER.STEPS) == tuple(step * share for step in full.SOLVER.STEPS)
    assert cfg.SOLVER.CHECKPOINT_PERIOD == full.SOLVER.CHECKPOINT_PERIOD * share
    assert cfg.MODEL.RESNETS.NORM == ("BN" if gpus == 1 else "SyncBN")
    from detectron2.engine import DefaultTrainer

    # not once more
    assert DefaultTrainer.auto_scale_workers(cfg, gpus).SOLVER.MAX_ITER == cfg.SOLVER.MAX_ITER


def test_what_is_typed_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    cfg = load("voc_R50_C4_24k.yaml", "SOLVER.IMS_PER_BATCH", "16", num_gpus=4)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (16, 0.02, 24000)
    cfg = load(
        "voc_R50_C4_24k.yaml",
        "SOLVER.MAX_ITER",
        "10",
        "SOLVER.BASE_LR",
        "0.5",
        "TEST.EVAL_PERIOD",
        "5",
        num_gpus=2,
    )
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (
        4,
        0.5,
        10,
        5,
    )
    assert cfg.SOLVER.WARMUP_ITERS == 400
    with pytest.raises(UserError, match="does not divide"):
        load("voc_R50_C4_24k.yaml", "SOLVER.REFERENCE_WORLD_SIZE", "3")


def test_scaling_is_said(voc, tmp_path):
    from argparse import Namespace

    from automix_transfer.detection.trainer import prepare

    given = Namespace(
        config_file=str(CONFIGS / "voc_R50_C4_24k.yaml"),
        opts=["MODEL.WEIGHTS", "", "OUTPUT_DIR", str(tmp_path)],
        data_root=voc,
        class_names=None,
        num_gpus=0,
        num_machines=1,
        resume=False,
        eval_only=False,
    )
    prepare(given)
    assert any(
        "schedule for 1 process (made for 8): SOLVER.IMS_PER_BATCH 2, BASE_LR 0.0025" in note
        for note in given.notes
    )
    assert "one process: MODEL.RESNETS.NORM SyncBN is BN" in given.notes


@pytest.mark.parametrize("name", NAMES)
def test_model_is_built(name):
    """On the meta device, where weights cost nothing: the whole detector, as many classes as its data."""
    from detectron2.modeling import META_ARCH_REGISTRY

    cfg = load(name)
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    assert model.roi_heads.box_predictor.cls_score.out_features == cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1
    assert model.roi_heads.mask_on == cfg.MODEL.MASK_ON
    frozen = [key for key, value in model.named_parameters() if not value.requires_grad]
    assert frozen == [] and not any("Frozen" in type(module).__name__ for module in model.modules())
    if "_C4" in name:
        assert hasattr(model.roi_heads.res5, "norm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco_R50_FPN_1x_mask.yaml", "embedded_R10_C4.yaml"])
def test_masks_of_a_folder(name, tmp_path):
    """Mask R-CNN on --data-root: segmentations are read, trained on and evaluated."""
    from automix_transfer.detection import trainer

    small = (
        [
            "MODEL.BACKBONE.NAME",
            "build_automix_resnet_fpn_backbone",
            "MODEL.RESNETS.DEPTH",
            "10",
            "MODEL.RESNETS.RES2_OUT_CHANNELS",
            "32",
            "MODEL.FPN.OUT_CHANNELS",
            "32",
            "MODEL.ROI_BOX_HEAD.FC_DIM",
            "32",
            "TEST.PRECISE_BN.ENABLED",
            "False",
        ]
        if "FPN" in name
        else []
    )
    root = write_coco_masks(tmp_path / "coco")
    result = trainer.run(
        CONFIGS / name, "", root, tmp_path / "run", [*QUICK, "MODEL.MASK_ON", "True", *small]
    )
    assert set(result) == {"AP", "AP50", "AP75"}
    metrics = yaml.safe_load((tmp_path / "run" / "results.json").read_text())["metrics"]
    assert all({"bbox", "segm"} <= set(tasks) for tasks in metrics.values())


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_masks_that_are_not_there(layout, request, tmp_path):
    from automix_transfer.detection import trainer

    with pytest.raises(UserError, match="MODEL.MASK_ON True needs segmentations"):
        trainer.run(
            CONFIGS / "embedded_R10_FPN.yaml",
            "",
            request.getfixturevalue(layout),
            tmp_path,
            [*QUICK, "MODEL.MASK_ON", "True"],
        )


def test_adamw_for_layer_norms():
    from automix_transfer.detection.engine import Trainer

    cfg = load("coco_SwinT_FPN_1x.yaml")
    with torch.device("meta"):
        from detectron2.modeling import META_ARCH_REGISTRY

        model = META_ARCH_REGISTRY.get("GeneralizedRCNN")(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {
        id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]
    }
    by_name = {name: decay[id(value)] for name, value in model.named_parameters()}
    assert {
        value for name, value in by_name.items() if "norm" in name or name.endswith(("bias", "bias_table"))
    } == {0.0}
    assert by_name["backbone.bottom_up.encoder.layers.0.blocks.0.attn.qkv.weight"] == 0.05
    cfg = load("coco_R50_FPN_1x.yaml")
    assert isinstance(Trainer.build_optimizer(cfg, torch.nn.Linear(2, 2)), torch.optim.SGD)


@pytest.mark.parametrize(
    ("network", "given", "adamw"),
    [
        ("resnet18", (), True),  # as the recipe says, whose rate is AdamW's
        ("resnet18", ("MODEL.TIMM.OPTIMIZER", "auto"), False),
        ("convnext_atto", ("MODEL.TIMM.OPTIMIZER", "auto"), True),
        ("convnext_atto", ("MODEL.TIMM.OPTIMIZER", "SGD"), False),
    ],
)
def test_optimizer_of_timms_networks(network, given, adamw):
    from automix_transfer.detection.engine import Trainer

    cfg = load("coco_SwinT_FPN_1x.yaml", "MODEL.BACKBONE.NAME", f"timm_fpn/{network}", *given)
    optimizer = Trainer.build_optimizer(cfg, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW if adamw else torch.optim.SGD)
