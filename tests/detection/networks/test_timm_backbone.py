"""timm encoders as backbones: whole, proven, fed as they were trained; and every mistake in one sentence."""

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.models import EncoderInfo
from tests.detection.tiny import CONFIGS, QUICK, detector
from tests.models.files import automix_checkpoint, random_encoder, write_checkpoint

FPN = "embedded_R10_FPN.yaml"
NETWORKS = [
    *("convnext_atto", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0", "resnet18"),
    "deit_tiny_distilled_patch16_224",
]


def timm_detector(name, *overrides):
    return detector(FPN, "MODEL.BACKBONE.NAME", f"timm_fpn/{name}", *overrides)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pretraining checkpoint of a small ConvNeXt with two encoders."""
    return automix_checkpoint(tmp_path_factory.mktemp("encoder") / "last.pt", "convnext_atto")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_any_encoder_is_loaded_whole_and_proven(name, tmp_path):
    from automix_transfer.detection.networks.timm_backbone import is_layer_normed
    from automix_transfer.detection.weights.weights_check import load_weights
    from automix_transfer.models import create_encoder

    encoder = create_encoder(name, 7)
    with torch.no_grad():
        for value in encoder.parameters():  # LayerScale and zero-initialised norms hide what lies behind them
            value.add_(
                0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
            )
    torch.save(encoder.state_dict(), tmp_path / "x.pth")
    model, cfg = timm_detector(name)
    report = load_weights(model, str(tmp_path / "x.pth"), cfg.MODEL.BACKBONE.NAME)
    bottom_up = model.backbone.bottom_up
    assert report.matched == report.total == len(
        bottom_up.encoder.state_dict()
    ) and "largest difference 0" in str(report)
    held = encoder.state_dict()
    assert all(torch.equal(value, held[key]) for key, value in bottom_up.encoder.state_dict().items())
    assert bool(bottom_up.out_norms) == (is_layer_normed(name) and not name.startswith("deit"))
    assert model.training
    with torch.no_grad():
        shapes = {
            key: tuple(value.shape[-2:]) for key, value in model.backbone(torch.zeros(1, 3, 96, 160)).items()
        }
    assert shapes["p3"] == (12, 20) and shapes["p5"] == (3, 5)


@pytest.mark.slow
@torch.no_grad()
def test_swins_masks_are_made_for_each_image():
    """Features at another size are those of the network that timm builds anew for it; its last stage, one
    window in training, stays unshifted here."""
    from automix_transfer.detection.networks.timm_backbone import TimmBackbone

    name = "swin_tiny_patch4_window7_224"
    encoder = random_encoder(name, 3)
    ours = TimmBackbone(name, ["res2", "res3", "res4"]).eval()
    ours.encoder.load_state_dict(encoder.state_dict(), strict=False)
    encoder.set_input_size(img_size=(96, 160), window_size=(7, 7), always_partition=True)
    images = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    expected = encoder.forward_intermediates(images, indices=[0, 1, 2], intermediates_only=True)
    for found, value in zip(ours.features(images).values(), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize("name", ["swinv2_tiny_window8_256", "swinv2_cr_tiny_224"])
def test_swin_v2_takes_images_of_any_size(name):
    from automix_transfer.detection.networks.timm_backbone import TimmBackbone

    with torch.device("meta"):
        found = TimmBackbone(name, ["res2", "res5"])(torch.zeros(2, 3, 64, 96))
    assert found["res2"].shape == (2, 96, 16, 24) and found["res5"].shape == (2, 768, 2, 3)


def test_the_trial_of_another_size_leaves_no_trace():
    from automix_transfer.detection.networks.timm_backbone import _network, _taps

    network = _network("tf_efficientnet_lite0", 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    _taps(network, "tf_efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), state) and all(part.training for part in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_difference_in_features_is_an_error(tmp_path, monkeypatch):
    from automix_transfer.detection.networks import timm_backbone
    from automix_transfer.detection.weights.weights_check import load_weights
    from automix_transfer.models import create_encoder

    torch.save(create_encoder("convnext_atto", 3).state_dict(), tmp_path / "x.pth")
    model, cfg = timm_detector("convnext_atto")
    original = timm_backbone.TimmBackbone.features
    monkeypatch.setattr(
        timm_backbone.TimmBackbone, "features", lambda self, images: original(self, images.flip(1))
    )
    with pytest.raises(
        UserError,
        match="layer res3 of the detector's backbone timm/convnext_atto differs.*nothing was trained",
    ):
        load_weights(model, str(tmp_path / "x.pth"), cfg.MODEL.BACKBONE.NAME)


def test_the_checkpoint_says_how_to_feed_it(checkpoint):
    from automix_transfer.detection.config import load_config
    from automix_transfer.models.weights_file import read_weights

    def load(*overrides):
        name = ["MODEL.BACKBONE.NAME", "timm_fpn/convnext_atto"]
        return load_config(CONFIGS / FPN, ["MODEL.WEIGHTS", str(checkpoint), *name, *overrides], 0)

    info = read_weights(checkpoint).info
    cfg, _ = load()
    assert list(cfg.MODEL.PIXEL_MEAN) == pytest.approx([255 * value for value in info.mean])
    assert list(cfg.MODEL.PIXEL_STD) == pytest.approx([255 * value for value in info.std])
    with pytest.raises(
        UserError,
        match=r"MODEL.PIXEL_STD is \[1.0, 1.0, 1.0\], but the weights .*last.pt were trained with \[",
    ):
        load("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]")
    with pytest.raises(UserError, match="INPUT.FORMAT is 'BGR'.*'RGB'"):
        load("INPUT.FORMAT", "BGR")
    with pytest.raises(
        UserError,
        match="NAME is timm_fpn/convnext_tiny, but .*holds encoder 'convnext_atto'; set MODEL.BACKBONE.NAME",
    ):
        load("MODEL.BACKBONE.NAME", "timm_fpn/convnext_tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm_fpn/convnext_tinny", "did you mean convnext_tiny"),
        ("timm_fpn/vit_small_patch32_224", "patches of 32 pixels"),
        ("timm_fpn/inception_v3", "maps do not fit each other"),
    ],
)
def test_networks_that_cannot_be_backbones(name, message):
    with pytest.raises(UserError, match=message):
        detector(FPN, "MODEL.BACKBONE.NAME", name)


@torch.no_grad()
def test_a_map_with_its_channels_last_and_as_high_as_they_are_many():
    from automix_transfer.detection.weights.encoder_weights import maps_of

    encoder = random_encoder("test_mambaout", 3)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert encoder.feature_info[0]["num_chs"] == 64 // 4
    (expected,) = encoder.forward_intermediates(image, indices=[0], intermediates_only=True)
    assert torch.equal(maps_of(encoder, ["res2"])(image)["res2"], expected)


def test_layers_that_timm_names_and_a_network_lacks():
    from automix_transfer.detection.weights.encoder_weights import maps_of
    from automix_transfer.models import create_encoder

    with (
        torch.device("meta"),
        pytest.raises(UserError, match="block.0 .* no such layer.*take another encoder"),
    ):
        maps_of(create_encoder("twins_svt_small", 3), ["res2"])


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("voc_R50_C4_24k.yaml", [], "has ResNet's res5 in it"),
        (FPN, ["MODEL.BACKBONE.FREEZE_AT", "2"], "trained whole"),
    ],
)
def test_settings_that_mean_nothing_here(config, overrides, message):
    with pytest.raises(UserError, match=message):
        detector(config, "MODEL.BACKBONE.NAME", "timm_fpn/convnext_atto", *overrides)


def test_files_in_the_wrong_place(checkpoint, r10, tmp_path):
    from safetensors.torch import save_file

    from automix_transfer.detection.weights.weights_check import load_weights
    from automix_transfer.models import create_encoder

    model, cfg = timm_detector("convnext_atto")
    with pytest.raises(UserError, match="does not go into MODEL.BACKBONE.NAME timm_fpn/convnext_atto"):
        load_weights(model, str(r10), cfg.MODEL.BACKBONE.NAME)
    torch.save(create_encoder("resnet18", 3).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(UserError, match="does not fit encoder 'ConvNeXt'|does not fit encoder"):
        load_weights(model, str(tmp_path / "r18.pth"), cfg.MODEL.BACKBONE.NAME)
    save_file(create_encoder("resnet18", 3).state_dict(), tmp_path / "r18.safetensors")
    with pytest.raises(UserError, match="export it .*timm_fpn/NAME"):
        load_weights(detector(FPN)[0], str(tmp_path / "r18.safetensors"))


def test_batchnorm_of_a_timm_backbone():
    """FrozenBN and SyncBN keep the activation that timm fuses into its norms."""
    from automix_transfer.detection.networks.timm_backbone import TimmBackbone

    plain = TimmBackbone("tf_efficientnet_lite0", ["res4"]).eval()
    frozen, synced = (
        TimmBackbone("tf_efficientnet_lite0", ["res4"], norm).eval() for norm in ("FrozenBN", "SyncBN")
    )
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in synced.modules()) > 10
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = plain(images)["res4"]
    for other in (frozen, synced):
        other.load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(other(images)["res4"], expected)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_trains_and_is_rebuilt_from_its_folder(name, voc, tmp_path):
    """Two iterations; then plain Detectron2, with nothing but an import of ours, loads what was trained."""
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    from automix_transfer.detection import trainer

    info = EncoderInfo(name, 3, image_size=64)  # Swin's windows are smaller than its usual ones
    weights = write_checkpoint(tmp_path / "x.pt", {"encoder": info.build()}, info)
    options = [*QUICK, "MODEL.BACKBONE.NAME", f"timm_fpn/{name}", "SOLVER.BASE_LR", "0.0001"]
    result = trainer.run(CONFIGS / FPN, str(weights), voc, tmp_path, options)
    assert set(result) == {"AP", "AP50", "AP75"}
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "config.yaml"))
    cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    found = DefaultPredictor(cfg)(torch.zeros(64, 80, 3, dtype=torch.uint8).numpy())
    assert "instances" in found
    size = 64 if name.startswith("swin") else 0
    assert cfg.MODEL.TIMM.IMAGE_SIZE == size
    assert ("TIMM:" in (tmp_path / "config.yaml").read_text()) == bool(size)  # else Detectron2's keys alone
