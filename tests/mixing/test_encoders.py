"""AutoMix trains on every encoder of the paper's tables, at the size that the encoder is meant for."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from automix_transfer.mixing import AutoMix
from automix_transfer.models import create_encoder


@pytest.mark.parametrize(("name", "stem", "size", "layer", "cells"), [
    ("resnet18", "imagenet", 224, "layer3", 14), ("resnet34", "imagenet", 224, "layer3", 14), ("resnet50", "imagenet", 224, "layer3", 14),
    ("resnet101", "imagenet", 224, "layer3", 14), ("resnext50_32x4d", "imagenet", 224, "layer3", 14),
    ("resnext101_32x4d", "imagenet", 224, "layer3", 14), ("mobilenetv2_100", "imagenet", 224, "blocks.4", 14),
    ("efficientnet_b0", "imagenet", 224, "blocks.4", 14), ("convnext_tiny", "imagenet", 224, "stages.2", 14),
    ("deit_small_patch16_224", "imagenet", 224, "blocks.5", 14), ("swin_tiny_patch4_window7_224", "imagenet", 224, "layers.2", 14),
    ("resnet18", "cifar", 32, "layer3", 8), ("resnext50_32x4d", "cifar", 32, "layer3", 8), ("resnet18", "cifar", 64, "layer3", 16),
    ("wrn_28_8", "cifar", 32, "block2", 16),
])
def test_two_steps_of_automix(name: str, stem: str, size: int, layer: str, cells: int) -> None:
    torch.manual_seed(0)
    method = AutoMix(create_encoder(name, 10, stem))
    assert method.layer == layer
    before = {key: value.clone() for key, value in method.named_parameters()}
    optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.001)
    for step in range(2):
        output = method(torch.rand(2, 3, size, size), torch.tensor([1, 2]), torch.Generator().manual_seed(step))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / 2)
        assert torch.isfinite(output.loss)
        blocks = output.mask.unfold(2, size // cells, size // cells).unfold(3, size // cells, size // cells)
        assert blocks.shape[2:4] == (cells, cells) and torch.equal(blocks.amin((-1, -2)), blocks.amax((-1, -2)))  # layer l's cells
    changed = {key for key, value in method.named_parameters() if not torch.equal(value, before[key])}
    assert any(key.startswith("mix_block") for key in changed) and any(key.startswith("encoder_q") for key in changed)
    assert any(key.startswith("encoder_k") for key in changed)


def test_compiled_encoders_are_compiled_once_for_each_use() -> None:
    """k on mixed images with a gradient, q on clean and on mixed ones: no tap and no step makes dynamo start again."""
    counters.clear()
    torch.manual_seed(0)
    method = AutoMix(create_encoder("cifar_resnet8", 4, "cifar"))
    for encoder in method.encoders().values():
        encoder.compile(backend="eager")
    counts = []
    for step in range(4):
        method(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), torch.Generator().manual_seed(step)).loss.backward()
        method.after_step(step / 4)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[0] <= 3 and counts == counts[:1] * 4
