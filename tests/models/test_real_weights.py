"""Real, trained weights load whole and are right about real images."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.models import create_encoder, load_encoder, load_into, read_weights


@pytest.mark.parametrize(
    ("file", "name", "classes"),
    [
        ("tf_efficientnet_lite0.safetensors", "tf_efficientnet_lite0", 1000),
        ("squeezenet1_1.pth", "torchvision/squeezenet1_1", 1000),
        ("cifar10_resnet20.th", "cifar_resnet20", 10),
        ("cifar10_resnet56.th", "cifar_resnet56", 10),
    ],
)
def test_load_whole(shared: Path, file: str, name: str, classes: int) -> None:
    encoder, info = load_encoder(shared / "weights" / file, name)
    assert info.num_classes == classes
    assert encoder(torch.zeros(1, 3, info.image_size, info.image_size)).shape == (1, classes)


def test_new_classifier_for_fine_tuning(shared: Path) -> None:
    weights = read_weights(shared / "weights/tf_efficientnet_lite0.safetensors")
    report = load_into(create_encoder("tf_efficientnet_lite0", 50), weights, classifier="new")
    assert (report.matched, report.total) == (294, 296)


@pytest.mark.slow
def test_cifar_resnet20_is_right_about_real_images(shared: Path) -> None:
    """92 % on the whole test set (91.73); here 400 images."""
    encoder, info = load_encoder(shared / "weights/cifar10_resnet20.th", "cifar_resnet20")
    by_class: dict[str, list[np.ndarray]] = defaultdict(list)
    with tarfile.open(shared / "data/cifar10-test.tar.gz") as archive:
        for member in archive:
            name = Path(member.name).parent.name
            if member.name.endswith(".png") and len(by_class[name]) < 40:
                file = archive.extractfile(member)
                assert file is not None
                by_class[name].append(np.array(Image.open(file)))
    assert len(by_class) == 10
    images = (
        torch.from_numpy(np.stack([image for name in sorted(by_class) for image in by_class[name]])).permute(
            0, 3, 1, 2
        )
        / 255
    )
    labels = torch.arange(10).repeat_interleave(40)
    images = (images - torch.tensor(info.mean).view(3, 1, 1)) / torch.tensor(info.std).view(3, 1, 1)
    with torch.no_grad():
        right = (encoder(images).argmax(1) == labels).float().mean().item()
    assert right > 0.88
