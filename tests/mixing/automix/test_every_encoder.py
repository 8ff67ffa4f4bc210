"""AutoMix trains on every encoder of the paper's tables, at the size that the encoder is meant for."""

from __future__ import annotations

import pytest
import timm
import torch
from torch._dynamo.utils import counters

from automix_transfer.errors import UserError
from automix_transfer.mixing import AutoMix, build_method
from automix_transfer.models import create_encoder, feature_layer
from automix_transfer.models.taps import feature_channels


@pytest.mark.parametrize(
    ("name", "stem", "size", "layer", "cells"),
    [
        pytest.param("resnet18", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        pytest.param("resnet34", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        pytest.param("resnet50", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        pytest.param("resnet101", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        pytest.param("resnext101_32x4d", "imagenet", 224, "layer3", 14, marks=pytest.mark.slow),
        ("mobilenetv2_100", "imagenet", 224, "blocks.4", 14),
        ("efficientnet_b0", "imagenet", 224, "blocks.4", 14),
        pytest.param("convnext_tiny", "imagenet", 224, "stages.2", 14, marks=pytest.mark.slow),
        pytest.param("deit_small_patch16_224", "imagenet", 224, "blocks.5", 14, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", "imagenet", 224, "layers.2", 14, marks=pytest.mark.slow),
        ("resnet18", "cifar", 32, "layer3", 8),
        pytest.param("resnext50_32x4d", "cifar", 32, "layer3", 8, marks=pytest.mark.slow),
        pytest.param("resnet18", "cifar", 64, "layer3", 16, marks=pytest.mark.slow),
        pytest.param("wrn_28_8", "cifar", 32, "block2", 16, marks=pytest.mark.slow),
    ],
)
def test_two_steps_of_automix(name: str, stem: str, size: int, layer: str, cells: int) -> None:
    torch.manual_seed(0)
    method = AutoMix(create_encoder(name, 10, stem))
    assert method.layer == layer
    before = {key: value.clone() for key, value in method.named_parameters()}
    optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.001)
    for step in range(2):
        output = method(
            torch.rand(2, 3, size, size), torch.tensor([1, 2]), torch.Generator().manual_seed(step)
        )
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / 2)
        assert torch.isfinite(output.loss)
        blocks = output.mask.unfold(2, size // cells, size // cells).unfold(3, size // cells, size // cells)
        # layer l's cells
        assert blocks.shape[2:4] == (cells, cells) and torch.equal(
            blocks.amin((-1, -2)), blocks.amax((-1, -2))
        )
    changed = {key for key, value in method.named_parameters() if not torch.equal(value, before[key])}
    assert any(key.startswith("mix_block") for key in changed) and any(
        key.startswith("encoder_q") for key in changed
    )
    assert any(key.startswith("encoder_k") for key in changed)


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("hiera_tiny_224", 224, 384),
        ("coatnet_nano_rw_224", 160, 256),
        ("levit_128s", None, 384),
        ("volo_d1_224", None, 384),
        ("test_maxvit", None, 96),
        ("gcvit_xxtiny", None, 256),
        ("torchvision/vit_b_16", None, 768),
    ],
)
def test_channels_of_networks_that_take_one_size(name: str, size: int | None, channels: int) -> None:
    """They are found at the size that the network was built for, and finding them changes nothing."""
    if not name.startswith("torchvision") and not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with torch.device("meta" if name in ("volo_d1_224", "torchvision/vit_b_16") else "cpu"):
        encoder = create_encoder(name, 3, image_size=size)
    before, state = {key: value.clone() for key, value in encoder.state_dict().items()}, torch.get_rng_state()
    layer = (
        "encoder.layers.encoder_layer_5" if name.startswith("torchvision") else feature_layer(encoder, "auto")
    )
    assert feature_channels(encoder, layer) == channels
    assert encoder.training and torch.equal(torch.get_rng_state(), state)
    assert all(
        value.is_meta or torch.equal(value, before[key]) for key, value in encoder.state_dict().items()
    )


def test_a_network_that_takes_no_image_is_named() -> None:
    encoder = create_encoder("resnet10_32", 3)
    encoder.layer2[0].conv1 = torch.nn.Conv2d(7, 64, 3)
    with pytest.raises(UserError, match="ResNet .*'layer3' .*encoder.name"):
        build_method("automix", encoder, {})


def test_compiled_encoders_are_compiled_once_for_each_use() -> None:
    """k on mixed images with a gradient, q on clean and on mixed ones: no tap and no step makes dynamo start
    again."""
    counters.clear()
    torch.manual_seed(0)
    method = AutoMix(create_encoder("cifar_resnet8", 4, "cifar"))
    for encoder in method.encoders().values():
        encoder.compile(backend="eager")
    counts = []
    for step in range(4):
        method(
            torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), torch.Generator().manual_seed(step)
        ).loss.backward()
        method.after_step(step / 4)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[0] <= 3 and counts == counts[:1] * 4
