"""Checkpoint files as the training loop writes them, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from automix_transfer.models.encoders import EncoderInfo, create_encoder


def random_encoder(name: str, num_classes: int, stem: str = "imagenet", seed: int = 0) -> nn.Module:
    """An encoder in eval mode whose every tensor differs from its initial value, BN statistics and
    zero-initialised scales too."""
    generator = torch.Generator().manual_seed(seed)
    encoder = create_encoder(name, num_classes, stem).eval()
    for key, value in encoder.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.fill_(17 + seed)
        elif value.ndim == 1:  # scales, biases, statistics: around 1, variances positive
            value.copy_(1 + 0.2 * torch.rand(value.shape, generator=generator))
        else:
            value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
    return encoder


def write_checkpoint(path: Path, networks: dict[str, nn.Module], info: EncoderInfo, **changes: Any) -> Path:
    """A checkpoint in our format with these encoders, the first being the one of inference, and some of the
    method's other state."""
    prefixes = {name: f"encoder_{name}." if len(networks) > 1 else "encoder." for name in networks}
    model = {
        f"{prefixes[name]}{key}": value
        for name, encoder in networks.items()
        for key, value in encoder.state_dict().items()
    }
    content: dict[str, Any] = {
        "format": "automix_transfer/1",
        "encoder": info.to_dict(),
        "encoders": prefixes,
        "model": {**model, "mix_block.query.weight": torch.zeros(2, 2), "progress": torch.zeros(())},
        "config": {"seed": 0},
        "step": 7,
        "epoch": 1,
        "optimizer": {"state": {}},
        "best": {"top1": 1.0},
        "history": [{"loss": 1.0}],
    }
    torch.save({**content, **changes}, path)
    return path


def automix_checkpoint(
    path: Path, name: str, num_classes: int = 5, stem: str = "imagenet", image_size: int = 64, **changes: Any
) -> tuple[Path, dict[str, nn.Module]]:
    """A checkpoint with encoders k and q."""
    encoders = {
        "k": random_encoder(name, num_classes, stem, 0),
        "q": random_encoder(name, num_classes, stem, 1),
    }
    info = EncoderInfo(
        name, num_classes, stem, image_size, class_names=tuple(f"class {i}" for i in range(num_classes))
    )
    return write_checkpoint(path, encoders, info, **changes), encoders


def assert_same(a: nn.Module, b: nn.Module) -> None:
    """Bit-equal parameters and buffers under the same keys."""
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different, different
