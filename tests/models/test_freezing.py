"""Frozen parts stay bit for bit as they were loaded, whatever method trains the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, save_torch
from automix_transfer.models.encoders import create_encoder
from automix_transfer.models.freezing import freeze, keep_frozen
from automix_transfer.models.weights import load_encoder
from automix_transfer.training.loop import train
from automix_transfer.training.settings import load_experiment
from tests.training.tiny import FAST, write_images


def trained(folder: Path, *words: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after a short training."""
    torch.manual_seed(0)
    start = create_encoder("resnet10_32", 3)
    torch.nn.init.uniform_(start.bn1.running_mean)  # statistics that training would move
    save_torch(folder / "start.pth", start.state_dict())
    given = [f"encoder.weights={folder / 'start.pth'}", f"data.root={write_images(folder / 'data')}"]
    train(load_experiment(overrides=[*FAST, *given, f"output={folder / 'run'}", *words]))
    return load_torch(folder / "start.pth"), load_encoder(folder / "run" / "last.pt")[0].state_dict()


@pytest.mark.parametrize(
    ("words", "frozen"),
    [
        (["encoder.freeze=2"], ("conv1.", "bn1.", "layer1.")),
        (["encoder.head_only=true"], ("conv1.", "bn1.", "layer")),
        # k, whose BatchNorm gathers its own statistics here, is what is saved and compared
        (["encoder.freeze=2", "method.name=automix", "method.k_mode=train"], ("conv1.", "bn1.", "layer1.")),
    ],
)
def test_what_is_frozen_stays_bit_for_bit(tmp_path: Path, words: list[str], frozen: tuple[str, ...]) -> None:
    before, after = trained(tmp_path, *words)
    for key, value in before.items():
        if key.startswith(frozen):
            assert torch.allclose(value, after[key], rtol=0, atol=1e-6 if "automix" in str(words) else 0), key
    assert any(not torch.equal(before[key], after[key]) for key in before if not key.startswith(frozen))


def test_parts_of_transformers_are_blocks() -> None:
    encoder = create_encoder("vit_tiny_patch16_224", 3, image_size=32)
    freeze(encoder, 3)
    keep_frozen(encoder.train())
    assert not encoder.blocks[1].training and encoder.blocks[2].training
    assert not encoder.patch_embed.proj.weight.requires_grad and encoder.head.weight.requires_grad


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(UserError, match="encoder.freeze=9"):
        freeze(create_encoder("resnet10_32", 3), 9)
    with pytest.raises(UserError, match="head_only"):
        freeze(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), 0, head_only=True)
