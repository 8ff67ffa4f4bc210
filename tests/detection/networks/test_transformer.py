"""Plain vision transformers as backbones: timm's features, interpolated positions, windows, the simple
pyramid, rates by depth, and every mistake in one sentence."""

import copy

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.models import EncoderInfo, create_encoder
from tests.detection.tiny import CONFIGS, QUICK, detector
from tests.models.files import random_encoder, write_checkpoint

FPN, NAME = "embedded_R10_FPN.yaml", "test_vit"  # of timm: 64 channels, 160 pixels
BACKBONE = ["MODEL.BACKBONE.NAME", f"timm_fpn/{NAME}"]


def backbone(encoder, **options):
    from automix_transfer.detection.networks.timm_backbone import TimmBackbone

    found = TimmBackbone(NAME, ["res4"], **options).eval()
    state = encoder.state_dict()
    found.encoder.load_state_dict({key: state[key] for key in found.encoder.state_dict()})
    return found


def last_map(encoder, images):
    return encoder.forward_intermediates(images, indices=1, intermediates_only=True)[0]


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(NAME, 3)


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_features_are_timms_at_the_size_of_training_and_at_any_other(encoder):
    ours = backbone(encoder)
    assert torch.equal(ours(images(2, 3, 160, 160))["res4"], last_map(encoder, images(2, 3, 160, 160)))
    dynamic = create_encoder(NAME, 3, dynamic_img_size=True).eval()
    dynamic.load_state_dict(encoder.state_dict())
    other = images(1, 3, 96, 128)
    assert torch.equal(ours(other)["res4"], last_map(dynamic, other))
    built = copy.deepcopy(encoder)
    built.set_input_size(img_size=(96, 128))
    assert torch.equal(ours(other)["res4"], last_map(built, other))


@torch.no_grad()
def test_windows_as_large_as_the_map_change_no_bit(encoder):
    windowed, whole = backbone(encoder, window=10), backbone(encoder)
    for size in ((160, 160), (96, 64)):
        seen = images(2, 3, *size)
        assert torch.equal(windowed(seen)["res4"], whole(seen)["res4"])
    small = backbone(encoder, window=4)
    seen = images(2, 3, 160, 160)
    assert not torch.allclose(small(seen)["res4"], whole(seen)["res4"], atol=1e-2)
    assert torch.equal(small.features(seen)["res4"], whole(seen)["res4"])  # what the proof compares
    copied = copy.deepcopy(small)
    copied.windows.side = 10
    assert torch.equal(copied(seen)["res4"], whole(seen)["res4"])
    assert not torch.equal(small(seen)["res4"], whole(seen)["res4"])


@torch.no_grad()
def test_attention_in_windows_is_that_of_each_window_alone(encoder):
    """Against a loop over slices, where nothing is filled up or masked."""
    grid, side = (10, 7), 4
    attention = encoder.blocks[1].attn  # the first is the last of its quarter
    tokens = images(2, 1 + 70, 64)
    patches, expected, classes = tokens[:, 1:].unflatten(1, grid), torch.zeros(2, *grid, 64), []
    for y in range(0, grid[0], side):
        for x in range(0, grid[1], side):
            window = patches[:, y : y + side, x : x + side]
            found = attention(torch.cat([tokens[:, :1], window.flatten(1, 2)], 1))
            expected[:, y : y + side, x : x + side] = found[:, 1:].unflatten(1, window.shape[1:3])
            classes.append(found[:, :1])
    ours = backbone(encoder, window=side)
    ours.windows.grid = grid
    found = ours.encoder.blocks[1].attn(tokens)
    torch.testing.assert_close(found[:, 1:].unflatten(1, grid), expected)
    torch.testing.assert_close(found[:, :1], torch.stack(classes).mean(0))
    last = ours.encoder.blocks[-1].attn
    assert torch.equal(last(tokens), encoder.blocks[-1].attn(tokens))


def test_the_pyramid_has_the_strides_of_its_levels():
    model, _ = detector("voc_DeiTS_FPN_24k.yaml", *BACKBONE)
    pyramid = model.backbone.eval()
    with torch.no_grad():
        maps = pyramid(images(1, 3, 64, 128))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        f"p{level}": (1, 256, 64 // 2**level, 128 // 2**level) for level in range(2, 7)
    }
    shapes = pyramid.output_shape()
    assert {name: (shape.stride, shape.channels) for name, shape in shapes.items()} == {
        f"p{level}": (2**level, 256) for level in range(2, 7)
    }
    assert pyramid.size_divisibility == 32
    assert torch.equal(maps["p6"], maps["p5"][:, :, ::2, ::2])
    norms = [type(module).__name__ for module in pyramid.levels.modules() if "Norm" in type(module).__name__]
    assert norms == ["LayerNorm2d"] * 9  # two a level, and one between the two deconvolutions of p2


def test_rates_fall_with_depth_and_positions_do_not_decay():
    from automix_transfer.detection.engine import Trainer

    model, cfg = detector("voc_DeiTS_FPN_24k.yaml", *BACKBONE)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    depth, base = len(model.backbone.bottom_up.encoder.blocks), cfg.SOLVER.BASE_LR
    for name, value in model.named_parameters():
        group, key = groups.pop(id(value)), name.removeprefix("backbone.bottom_up.encoder.")
        layer = depth + 1 if key == name else int(key.split(".")[1]) + 1 if key.startswith("blocks") else 0
        assert group["lr"] == pytest.approx(base * 0.7 ** (depth + 1 - layer)), name
        kept = key in ("pos_embed", "cls_token") or "norm" in name
        if "levels" not in name:  # whose norms have numbers
            assert group["weight_decay"] == (0.0 if kept else 0.1), name
    assert not groups
    plain = Trainer.build_optimizer(*reversed(detector(FPN, *BACKBONE)))
    assert {group["lr"] for group in plain.param_groups} == {0.03}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2 has patches of 14"),
        ("beit_base_patch16_224", "beit_base_patch16_224 has no feature maps"),
        ("coatnet_nano_rw_224", "timm_fpn/coatnet_nano_rw_224 takes images of its own size only"),
        ("maxvit_nano_rw_256", "timm_fpn/maxvit_nano_rw_256 takes images of its own size only"),
    ],
)
def test_networks_that_make_no_pyramid(name, message):
    from automix_transfer.detection.networks.timm_backbone import features_of

    with pytest.raises(UserError, match=message):
        features_of(name)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("voc_R50_C4_24k", BACKBONE, "Res5ROIHeadsExtraNorm .*timm_fpn/test_vit .*voc_DeiTS_FPN_24k"),
        ("voc_R50_FPN_24k", ["MODEL.TIMM.WINDOW", "14"], "MODEL.TIMM.WINDOW 14"),
        ("voc_SwinT_FPN_24k", ["MODEL.TIMM.WINDOW", "14"], "MODEL.TIMM.WINDOW 14"),
        ("voc_R50_FPN_24k", ["MODEL.TIMM.LAYER_DECAY", "0.7"], "MODEL.TIMM.LAYER_DECAY 0.7"),
        ("voc_R50_FPN_24k", ["MODEL.TIMM.OPTIMIZER", "AdamW"], "MODEL.TIMM.OPTIMIZER AdamW .*leave it out"),
        ("voc_SwinT_FPN_24k", ["MODEL.TIMM.OPTIMIZER", "LAMB"], "use one of auto, AdamW, SGD"),
        ("voc_R50_FPN_24k", ["MODEL.TIMM.IMAGE_SIZE", "64"], "MODEL.TIMM.IMAGE_SIZE 64"),
        ("voc_DeiTS_FPN_24k", ["MODEL.TIMM.IMAGE_SIZE", "100"], "MODEL.TIMM.IMAGE_SIZE=100"),
        ("voc_ConvNeXtT_FPN_24k", ["MODEL.TIMM.IMAGE_SIZE", "64"], "MODEL.TIMM.IMAGE_SIZE is 64"),
        ("voc_DeiTS_FPN_24k", ["MODEL.TIMM.LAYER_DECAY", "1.7"], "MODEL.TIMM.LAYER_DECAY is 1.7"),
        ("voc_DeiTS_FPN_24k", ["MODEL.FPN.IN_FEATURES", "['res2','res4']"], "MODEL.FPN.IN_FEATURES"),
        ("voc_DeiTS_FPN_24k", ["MODEL.FPN.IN_FEATURES", "['res2','stem']"], "MODEL.FPN.IN_FEATURES"),
    ],
)
def test_settings_that_mean_nothing_here(config, overrides, message):
    with pytest.raises(UserError, match=message):
        detector(f"{config}.yaml", *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pkl", "pt"])
def test_what_we_pretrained_goes_the_whole_chain(kind, voc, tmp_path):
    """A transformer of 64 pixels: exported, trained for two iterations, rebuilt by plain Detectron2 from its
    folder; resumed as it was begun or not at all."""
    from argparse import Namespace

    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    from automix_transfer.detection import trainer
    from automix_transfer.detection.weights.exporter import EXPORTERS
    from automix_transfer.export import export

    torch.manual_seed(0)
    network = create_encoder(NAME, 3, image_size=64)
    weights = write_checkpoint(tmp_path / "x.pt", {"encoder": network}, EncoderInfo(NAME, 3, image_size=64))
    if kind == "pkl":
        export(weights, "detectron2", tmp_path / "y.pkl", kinds=EXPORTERS)
        weights = tmp_path / "y.pkl"
    own = ["MODEL.TIMM.WINDOW", "2", "MODEL.TIMM.LAYER_DECAY", "0.7", "SOLVER.BASE_LR", "0.0001"]
    out = tmp_path / "run"
    result = trainer.run(CONFIGS / FPN, str(weights), voc, out, [*QUICK, *BACKBONE, *own])
    assert set(result) == {"AP", "AP50", "AP75"}
    cfg = get_cfg()
    cfg.merge_from_file(str(out / "config.yaml"))
    assert dict(cfg.MODEL.TIMM) == {"IMAGE_SIZE": 64, "WINDOW": 2, "LAYER_DECAY": 0.7, "OPTIMIZER": "auto"}
    cfg.MODEL.WEIGHTS = str(out / "model_final.pth")
    predictor = DefaultPredictor(cfg)
    assert "instances" in predictor(torch.zeros(64, 80, 3, dtype=torch.uint8).numpy())
    trained = torch.load(out / "model_final.pth", weights_only=True)["model"]
    for key, value in predictor.model.state_dict().items():
        assert torch.equal(value, trained[key]), key
    given = ["OUTPUT_DIR", str(out), "MODEL.TIMM.WINDOW", "0"]
    again = Namespace(config_file=str(CONFIGS / FPN), opts=given, data_root=voc, class_names=None)
    vars(again).update(num_gpus=0, num_machines=1, resume=True, eval_only=False)
    with pytest.raises(UserError, match="MODEL.TIMM.WINDOW 2"):
        trainer.prepare(again)
