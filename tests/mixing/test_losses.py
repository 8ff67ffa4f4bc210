"""Eqs. 1, 2 and 7 against their definitions."""

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.mixing.draw import draw_beta, draw_pairs
from automix_transfer.mixing.losses import (
    LossOptions,
    check_batch,
    flat_mask_loss,
    label_loss,
    lam_loss,
    mixup_cross_entropy,
    pair_loss,
    summed_loss,
    target_loss,
)


def test_mixup_cross_entropy_is_cross_entropy_with_soft_labels():
    logits, y_i, y_j = torch.randn(5, 7), torch.randint(7, (5,)), torch.randint(7, (5,))
    soft = 0.3 * torch.nn.functional.one_hot(y_i, 7) + 0.7 * torch.nn.functional.one_hot(y_j, 7)
    expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert torch.allclose(mixup_cross_entropy(logits, y_i, y_j, 0.3), expected)


@pytest.mark.parametrize("lam, labels", [(1.0, "own"), (0.0, "partner")])
def test_extreme_lam_gives_back_one_images_loss(lam, labels):
    logits, y_i, y_j = torch.randn(5, 7), torch.randint(7, (5,)), torch.randint(7, (5,))
    expected = torch.nn.functional.cross_entropy(logits, y_i if labels == "own" else y_j)
    assert torch.allclose(mixup_cross_entropy(logits, y_i, y_j, lam), expected)


def test_class_weights_count_labels_and_stay_linear_in_them():
    """Each label's term is multiplied by its class's weight, and the mean is over samples."""
    logits, labels, partners = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 0, 1, 2]),
        torch.tensor([1, 1, 0, 0, 2, 2]),
    )
    weights, lam = torch.tensor([0.5, 1.0, 4.0]), 0.3
    for smoothing in (0.0, 0.1):
        options = LossOptions(smoothing=smoothing)
        options.weights = weights
        smooth = (1 - smoothing) * torch.eye(3) + smoothing / 3
        each = -torch.log_softmax(logits, dim=1) * weights

        def expected(targets: torch.Tensor, each: torch.Tensor = each) -> torch.Tensor:
            return (targets * each).sum(dim=1).mean()

        own, other = smooth[labels], smooth[partners]
        torch.testing.assert_close(label_loss(logits, labels, options), expected(own))
        torch.testing.assert_close(summed_loss(logits, labels, options), 6 * expected(own))
        mixed = lam * own + (1 - lam) * other
        torch.testing.assert_close(pair_loss(logits, labels, partners, lam, options), expected(mixed))
        soft = lam * torch.eye(3)[labels] + (1 - lam) * torch.eye(3)[partners]
        torch.testing.assert_close(target_loss(logits, soft, options), expected(mixed))


def test_lam_loss_over_one_mask_and_over_the_batch():
    mask = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.9)])
    # each is 0.4 off, 0.3 beyond ε
    assert lam_loss(mask, 0.5, weight=2.0, margin=0.1).item() == pytest.approx(2.0 * 0.3)
    assert lam_loss(mask, 0.5, weight=2.0, margin=0.1, over="batch").item() == 0  # their mean is exactly λ
    assert lam_loss(mask[:1], 0.15, weight=2.0, margin=0.1).item() == 0  # within ε


def test_flat_masks_are_penalised_and_lively_ones_are_not():
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    halves = torch.cat([torch.zeros(1, 1, 2, 4), torch.ones(1, 1, 2, 4)], dim=2)  # standard deviation 0.5
    assert flat_mask_loss(flat, 0.5, 0.2).item() == pytest.approx(0.2, abs=1e-5)
    assert flat_mask_loss(halves, 0.5, 0.2).item() == 0
    assert flat_mask_loss(0.5 + (halves - 0.5) / 5, 0.5, 0.2).item() == pytest.approx(0.1, abs=1e-5)
    assert flat_mask_loss(flat, 0.0, 0.2).item() == 0  # λ = 0 leaves no room for structure
    flat_mask_loss(flat, 0.5, 0.2).backward()
    assert torch.isfinite(flat.grad).all()


def test_draws_repeat_and_follow_beta():
    first, second = (draw_pairs(9, 2.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.lam == second.lam and torch.equal(first.permutation, second.permutation)
    rng = torch.Generator().manual_seed(0)
    for alpha in (0.2, 2.0):
        values = torch.tensor([draw_beta(alpha, rng) for _ in range(4000)])
        assert values.mean().item() == pytest.approx(0.5, abs=0.03)
        # variance of Beta(α, α)
        assert values.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert 0 <= draw_beta(1e-9, rng) <= 1


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, dtype=torch.long), "no partner"),
        (torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.long), "N, C, H, W"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.long), "float"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, dtype=torch.long), "labels"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2), "labels"),
    ],
)
def test_batches_that_cannot_be_mixed_are_refused(images, labels, words):
    with pytest.raises(UserError, match=words):
        check_batch(images, labels)
