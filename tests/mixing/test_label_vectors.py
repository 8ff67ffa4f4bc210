"""Images with several labels: label vectors are mixed by λ, for every method, and compared by a binary
cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS, build_method
from automix_transfer.mixing.losses import LossOptions, label_loss, pair_loss, summed_loss
from automix_transfer.mixing.methods.comixup import shared_labels
from tests.mixing.tiny_methods import CLASSES, batch, tiny_encoder, tiny_method

TAKING = [name for name, entry in METHODS.items() if not entry.one_label]
VECTORS = {"loss": "bce", "bce_threshold": -1.0}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def several(count: int = 6) -> torch.Tensor:
    """Vectors of none to all classes."""
    return (torch.rand(count, CLASSES, generator=rng(5)) < 0.5).float()


def explicit(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-[y·log σ(x) + (1-y)·log(1-σ(x))], averaged."""
    p = torch.sigmoid(logits.double())
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def test_mixing_is_lam_of_both_vectors() -> None:
    logits, own, partner = torch.randn(6, CLASSES, generator=rng(1)), several(), several().flip(0)
    options = LossOptions(**VECTORS)
    for lam in (0.3, torch.linspace(0, 1, 6)):
        share = lam if isinstance(lam, float) else lam[:, None]
        wanted = explicit(logits, share * own + (1 - share) * partner)
        assert pair_loss(logits, own, partner, lam, options).double() == pytest.approx(
            float(wanted), rel=1e-6
        )
    clean = label_loss(logits, own, options)
    assert float(clean) == pytest.approx(float(explicit(logits, own)), rel=1e-6)
    assert float(summed_loss(logits, own, options)) == pytest.approx(6 * float(clean))
    smoothed = label_loss(logits, own, LossOptions(**VECTORS, smoothing=0.2))
    assert float(smoothed) == pytest.approx(float(explicit(logits, 0.8 * own + 0.1)), rel=1e-6)


def test_an_unknown_class_gets_no_gradient_and_changes_no_other() -> None:
    own, partner = several(), several().flip(0)
    own[1, 2] = torch.nan
    gradients = []
    for value in (torch.nan, 0.0):
        own[1, 2] = value
        logits = torch.randn(6, CLASSES, generator=rng(1)).requires_grad_(True)
        pair_loss(logits, own, partner, 0.3, LossOptions(**VECTORS)).backward()
        gradients.append(logits.grad)
    unknown, known = gradients
    assert unknown[1, 2] == 0 and known[1, 2] != 0
    unknown[1, 2] = known[1, 2]
    assert torch.equal(unknown, known)


@pytest.mark.parametrize("name", TAKING)
def test_vectors_of_one_class_are_that_class(name: str) -> None:
    """A step on one-hot vectors is the step on the labels with a binary cross-entropy, for every method."""
    losses = []
    for vectors in (False, True):
        method = tiny_method(name, **VECTORS, smoothing=0.0)
        if name in ("puzzlemix", "comixup"):
            method = tiny_method(name, **VECTORS, clean_weight=1.0)  # saliency of the loss itself
        images, labels = batch(method)
        output = method(images, functional.one_hot(labels, CLASSES).float() if vectors else labels, rng(2))
        output.loss.backward()
        losses.append([output.loss, *output.metrics.values()])
    for own, other in zip(*losses, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TAKING)
def test_every_method_trains_on_several_labels(name: str) -> None:
    method = tiny_method(name, **VECTORS)
    images, vectors = batch(method)[0], several()
    vectors[0, 0] = torch.nan
    for seed in range(2):
        output = method(images, vectors, rng(seed))
        output.loss.backward()
        assert torch.isfinite(output.loss) and all(torch.isfinite(m).all() for m in output.metrics.values())
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        assert grads and all(torch.isfinite(grad).all() for grad in grads)


def test_eq_8_of_automix_in_binary_cross_entropies() -> None:
    """Each term by its formula from the networks' logits, and ℓ_λ as it is."""
    method = tiny_method("automix", **VECTORS, preset="robust").eval()
    images, vectors = batch(method)[0], several()
    draw = method.draw(len(images), images.shape[2:], rng(4))
    output = method.step(images, vectors, draw)
    q, k = (net.eval() for net in (method.encoder_q, method.encoder_k))
    projected = method.mix_block.project(method.mask_features(images))
    mask = method.mask(projected, draw.k, (images.shape[2], images.shape[3]), draw.seed)
    mixed_k = mask * images + (1 - mask) * images[draw.k.permutation]

    def target(pairs):
        return pairs.lam * vectors + (1 - pairs.lam) * vectors[pairs.permutation]

    wanted = {
        "loss_mce": explicit(q(output.mixed), target(draw)),
        "loss_ce": explicit(q(images), vectors),
        "loss_gen": explicit(k(mixed_k), target(draw.k)),
    }
    for key, value in wanted.items():
        assert float(output.metrics[key]) == pytest.approx(float(value), rel=1e-5), key
    rest = float(method.mask_loss(mask, draw.k.lam))
    assert float(output.loss) == pytest.approx(float(sum(wanted.values())) + rest, rel=1e-5)


def test_shares_of_an_unknown_label_are_unknown() -> None:
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]])
    vectors = torch.tensor([[torch.nan, 1.0], [0.0, 1.0], [1.0, 0.0]])
    found = shared_labels(shares, vectors)
    assert (
        found[0].isnan().tolist() == [True, False]
        and found[:, 1].tolist() == [1.0, 0.5]
        and found[1, 0] == 0.5
    )


def test_vectors_ask_for_a_binary_loss() -> None:
    method = build_method("mixup", tiny_encoder("mixup"))
    with pytest.raises(UserError, match=r"method\.loss=bce"):
        method(batch(method)[0], several(), rng())
    with pytest.raises(UserError, match=r"\(4, 5\)"):
        tiny_method("mixup", **VECTORS)(batch(method)[0], several(4), rng())
