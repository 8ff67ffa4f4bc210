"""MixUp and CutMix against their definitions."""

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.mixing import CutMix, MixUp, build_method
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.models import create_encoder


def test_mixup_is_the_linear_combination():
    images = torch.randn(4, 3, 5, 6)
    method, labels = MixUp(torch.nn.Identity()), torch.arange(4)
    draw = PairDraw(0.3, torch.tensor([1, 2, 3, 0]))
    expected = 0.3 * images + 0.7 * images[[1, 2, 3, 0]]
    assert torch.allclose(method.mix(images, labels, draw).images, expected, atol=1e-6)
    assert torch.allclose(method.mix(images, labels, PairDraw(1.0, draw.permutation)).images, images)


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (1, 1)])
def test_cutmix_label_is_the_realised_area(size):
    images = torch.zeros(3, 1, *size) + torch.arange(3.0).view(3, 1, 1, 1)
    rng = torch.Generator().manual_seed(0)
    method = CutMix(torch.nn.Identity())
    for _ in range(50):
        draw = method.draw(3, size, rng)
        mixed = method.mix(images, torch.arange(3), draw).images
        for i in range(3):
            if draw.permutation[i] != i:
                assert (mixed[i] == images[i]).float().mean().item() == pytest.approx(draw.lam, abs=1e-6)


def test_cutmix_probability_zero_is_vanilla():
    method = build_method("cutmix", create_encoder("resnet10_32", 5), {"probability": 0.0})
    output = method(torch.randn(4, 3, 32, 32), torch.arange(4), torch.Generator().manual_seed(0))
    assert output.mixed is None and "loss_ce" in output.metrics


@pytest.mark.parametrize(
    "name, values, words",
    [
        ("mixup", {"alpha": 0}, "alpha"),
        ("cutmix", {"probability": 1.5}, "probability"),
        ("mixupp", {}, "did you mean"),
    ],
)
def test_wrong_options(name, values, words):
    with pytest.raises(UserError, match=words):
        build_method(name, create_encoder("resnet10_32", 5), values)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_beside_clean_images_their_loss_is_added(name):
    encoder = create_encoder("resnet10_32", 5).eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    losses = [
        build_method(name, encoder, {"clean_weight": weight})
        .eval()(images, labels, torch.Generator().manual_seed(1))
        .loss
        for weight in (0.0, 0.5)
    ]
    clean = torch.nn.functional.cross_entropy(encoder(images), labels)
    assert torch.isclose(losses[1] - losses[0], 0.5 * clean)
