"""Tiny encoders, batches and options for every method by name."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from automix_transfer.mixing import METHODS, Method, build_method
from automix_transfer.models import create_encoder

CLASSES, SIZE = 5, 32
EVERY = list(METHODS)
PAIRED = [name for name, entry in METHODS.items() if entry.at_lam and name != "automix"]


def tiny_vit(size: int = SIZE, **options: Any) -> nn.Module:
    """A vision transformer of 16 patches, two blocks and two heads."""
    return timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=CLASSES,
        img_size=size,
        patch_size=size // 4,
        embed_dim=16,
        depth=2,
        num_heads=2,
        **options,
    )


@functools.cache
def teacher_file() -> str:
    """Weights of a small network, as if it had been trained."""
    path = Path(tempfile.mkdtemp(prefix="automix_transfer_teacher_")) / "teacher.pth"
    torch.manual_seed(0)
    torch.save(create_encoder("resnet10_32", 7).state_dict(), path)
    return str(path)


def tiny_options(name: str) -> dict[str, Any]:
    """What a method cannot do without."""
    if name == "attentivemix":
        return {
            "teacher_weights": teacher_file(),
            "teacher": "resnet10_32",
            "teacher_layer": "2",
            "teacher_size": 64,
        }
    return {}


def tiny_encoder(name: str) -> nn.Module:
    torch.manual_seed(1)
    return tiny_vit() if name == "transmix" else tiny_resnet()


def tiny_resnet() -> nn.Module:
    """Four stages of 8 channels."""
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES, channels=(8, 8, 8, 8), stem_width=8)


def tiny_method(name: str, **options: Any) -> Method:
    return build_method(name, tiny_encoder(name), {**tiny_options(name), **options})


def batch(
    method: Method, count: int = 6, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Images with as many views as the method wants, and labels with a class that comes twice."""
    rng = torch.Generator().manual_seed(seed)
    channels = 3 * (1 + len(method.view_transforms()))
    return torch.randn(count, channels, *size, generator=rng), torch.arange(count) % CLASSES
