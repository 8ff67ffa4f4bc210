"""Features are what the classifier is given, and nothing that only looks like them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.probing.features import read_features
from automix_transfer.evaluation.probing.probes import open_encoder
from automix_transfer.mixing.heads import copy_head
from automix_transfer.models import create_encoder
from automix_transfer.models.classifier import find_classifiers
from tests.training.tiny import write_images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("images")
    write_images(folder)
    return eval_dataset(DataConfig("imagefolder", str(folder), image_size=64, test_crop_ratio=1.0))


class Gated(nn.Module):
    """A network whose only linear layer is a gate inside; its classifier is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(3, 3), nn.Conv2d(3, 5, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        gate = self.gate(images.mean((2, 3))).sigmoid()
        return self.head(images * gate[:, :, None, None]).mean((2, 3))


def test_features_are_the_classifiers_inputs(images) -> None:
    torch.manual_seed(0)
    encoder = create_encoder("resnet10_32", 4).eval()
    found = read_features(encoder, images, CPU, batch_size=3)
    with torch.no_grad():
        batch = torch.stack([images[index][0] for index in range(len(images))])
        expected = encoder.forward_head(encoder.forward_features(batch), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(found.values, expected)
    assert found.labels.tolist() == images.labels.tolist()
    assert read_features(nn.Sequential(nn.Conv2d(3, 6, 64), nn.Flatten()), images, CPU).values.shape[1] == 6


def test_several_classifiers_have_their_inputs_beside_each_other(images) -> None:
    torch.manual_seed(0)
    encoder = create_encoder("deit_tiny_distilled_patch16_224", 4, image_size=64).eval()
    found = read_features(encoder, images, CPU, batch_size=5)
    with torch.no_grad():
        batch = torch.stack([images[index][0] for index in range(len(images))])
        tokens = encoder.forward_features(batch)[:, :2]  # type: ignore[operator]
    torch.testing.assert_close(found.values, tokens.flatten(1))
    with pytest.raises(UserError, match=r"has 2 linear classifiers; use method\.heads=shared"):
        copy_head(encoder)


def test_classifiers_stand_beside_each_other_and_not_behind() -> None:
    vgg, cross = nn.Module(), nn.Module()
    vgg.classifier = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4))
    cross.head = nn.ModuleList([nn.Linear(2, 4), nn.Linear(3, 4)])
    assert find_classifiers(vgg) == [vgg.classifier[-1]] and find_classifiers(cross) == list(cross.head)


def test_logits_and_gates_are_no_features(images) -> None:
    squeezed, _, _ = open_encoder("random", "torchvision/squeezenet1_1", None, 0)
    for encoder in (squeezed, Gated()):
        with pytest.raises(UserError, match="linear classifier"):
            read_features(encoder, images, CPU)
