"""Every method's own mixer: the right partner, and the share of image i that was asked for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import PAIRS_A_DRAW, method_of, own_mixer
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.rng import derive_generator

INFO = EncoderInfo("resnet10_32", 3, image_size=32)
# allowed distance of the mean share from λ: none, rounding of sides, a box that the border clips
# (to a quarter, around the corner that a flat image's saliency picks), cells of saliency
ROUNDING = {
    "mixup": 1e-6,
    "manifoldmix": 1e-6,
    "alignmix": 1e-6,
    "cutmix": 0.05,
    "resizemix": 0.1,
    "fmix": 0.01,
    "saliencymix": 0.6,
    "mixup_cutmix": 0.3,
    "puzzlemix": 0.4,
}


def mixer_of(name: str, **options: object):
    torch.manual_seed(0)
    return own_mixer(name, build_method(name, INFO.build(), options, INFO).eval())


@pytest.mark.parametrize("name", list(ROUNDING))
@pytest.mark.parametrize("lam", [0.25, 0.5])
def test_partner_and_share(name: str, lam: float) -> None:
    """Image k is all k + 1, so each pixel of a mix is between the two and says how much of i it holds."""
    count = PAIRS_A_DRAW + 3
    values = torch.arange(1.0, count + 1).view(-1, 1, 1, 1)
    images, permutation = values.expand(-1, 3, 32, 32).contiguous(), torch.arange(count).roll(5)
    mixed = mixer_of(name)(images, permutation, lam, derive_generator(0, "test"))
    own, other = values, values[permutation]
    share = (mixed - other) / (own - other)
    assert mixed.shape == images.shape and not mixed.requires_grad
    assert share.min() > -1e-4 and share.max() < 1 + 1e-4
    assert abs(float(share.mean()) - lam) <= ROUNDING[name] + 1e-6
    again = mixer_of(name)(images, permutation, lam, derive_generator(0, "test"))
    assert torch.equal(mixed, again)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "fmix", "resizemix", "manifoldmix"])
def test_at_one_only_image_i_is_left(name: str) -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mixed = mixer_of(name)(images, torch.tensor([1, 2, 3, 4, 0]), 1.0, derive_generator(0, "test"))
    torch.testing.assert_close(mixed, images)


@pytest.mark.parametrize("name", ["vanilla", "augmix", "comixup"])
def test_methods_whose_share_cannot_be_given_have_none(name: str) -> None:
    assert mixer_of(name) is None


def test_automix_mixes_by_its_own_block() -> None:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mixed = mixer_of("automix", init_std=1.0)(
        images, torch.tensor([1, 0, 3, 2]), 0.5, derive_generator(0, "test")
    )
    assert mixed.shape == images.shape and not torch.allclose(
        mixed, (images + images[[1, 0, 3, 2]]) / 2, atol=1e-2
    )


def test_old_checkpoints_name_an_alpha_that_was_never_read() -> None:
    method = build_method("mixup_cutmix", INFO.build(), {}, INFO)
    content = {
        "encoder": INFO.to_dict(),
        "config": {"method": {"name": "mixup_cutmix", **asdict(method.options), "alpha": 1.0}},
        "model": method.state_dict(),
    }
    assert method_of(content, Path("last.pt"))[0].options == method.options


def test_a_checkpoint_cannot_name_a_network_larger_than_itself() -> None:
    method = build_method("vanilla", INFO.build(), {}, INFO)
    content = {
        "config": {"method": {"name": "vanilla"}},
        "encoder": {**asdict(INFO), "num_classes": 9_000_000},
        "model": method.state_dict(),
    }
    with pytest.raises(UserError, match="evil.pt.*holds"):
        method_of(content, Path("evil.pt"))
