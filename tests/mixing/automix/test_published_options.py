"""Each option by which the published code differs from the paper, alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from automix_transfer.mixing import PRESETS, AutoMix, build_method, load_options
from automix_transfer.mixing.automix.momentum import momentum_at
from automix_transfer.mixing.automix.step import AutoMixDraw
from automix_transfer.mixing.draw import PairDraw, draw_pairs
from automix_transfer.mixing.losses import gamma_at
from automix_transfer.models import create_encoder


def method(**options: object) -> AutoMix:
    torch.manual_seed(0)
    return build_method("automix", create_encoder("resnet10_32", 5), options)


def step(automix: AutoMix, skip: bool = False) -> None:
    """Forward and backward on a batch of six."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(6, 3, 32, 32, generator=generator), torch.arange(6) % 5
    pairs = [PairDraw(lam, torch.arange(6).roll(shift)) for lam, shift in ((0.4, 1), (0.2, 2))]
    draw = AutoMixDraw(pairs[0].lam, pairs[0].permutation, pairs[1], skip)
    automix.train().step(images, labels, draw).loss.backward()


def test_m_jumps_onto_a_cosine_that_has_run_since_step_0() -> None:
    curve = (0.999, 0.999999, 0.25, "whole")
    assert momentum_at(0.24, *curve) == 0.999
    for progress in (0.25, 0.5, 1.0):
        expected = 0.999999 - 0.000999 * (1 + math.cos(math.pi * progress)) / 2
        assert momentum_at(progress, *curve) == pytest.approx(expected, abs=1e-12)


def test_gamma_compounds() -> None:
    """Half after 1.2 % of 500,400 steps, a hundredth after 2.2 %; and by its definition."""
    total = 500_400
    assert gamma_at(0.012, round(0.012 * total), "compounding") == pytest.approx(0.5, abs=0.02)
    assert gamma_at(0.022, round(0.022 * total), "compounding") == pytest.approx(0.01, abs=0.003)
    assert gamma_at(0.0, 0, "compounding") == 1 and gamma_at(0.5, total // 2, "compounding") == 0
    product = 1.0
    for done in range(41):
        product *= (1 + math.cos(math.pi * done / 40)) / 2
        assert gamma_at(done / 40, done, "compounding") == pytest.approx(product, rel=1e-9, abs=1e-30)


@pytest.mark.parametrize("count", [2, 3, 16])
def test_nobody_is_its_own_partner(count: int) -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        partners = draw_pairs(count, 2.0, rng, derangement=True).permutation
        assert (partners != torch.arange(count)).all() and partners.sort()[0].equal(torch.arange(count))
    draw = method(partners="derangement").draw(count, (32, 32), rng)
    assert all((pairs.permutation != torch.arange(count)).all() for pairs in (draw, draw.k))


def test_heads_are_drawn_apart() -> None:
    automix = method(heads="separate", head_std=0.01)
    assert automix.head_q is not None and automix.head_k is not None
    heads = [automix.encoder_q.get_submodule("fc"), automix.head_q]
    for head in heads:
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.1) and not head.bias.any()
    assert not torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(automix.encoder_k.get_submodule("fc").weight, heads[0].weight)
    assert torch.equal(automix.head_k.weight, heads[1].weight)


@pytest.mark.parametrize("k_clean_pass, passes", [("to_layer", 1), ("whole", 2)])
def test_the_whole_clean_pass_counts_in_ks_statistics(k_clean_pass: str, passes: int) -> None:
    automix = method(k_mode="train", k_buffers="own", k_clean_pass=k_clean_pass)
    step(automix)
    norms = {n: m for n, m in automix.encoder_k.named_modules() if isinstance(m, nn.BatchNorm2d)}
    tracked = {name: int(norm.num_batches_tracked) for name, norm in norms.items()}
    assert {count for name, count in tracked.items() if name.startswith("layer4")} == {passes}
    assert {count for name, count in tracked.items() if name.startswith("layer1")} == {2}


@pytest.mark.parametrize("q_order", ["mixed_clean", "clean_mixed"])
@pytest.mark.parametrize("pipeline", ["momentum", "joint"])
def test_q_takes_its_passes_in_order(q_order: str, pipeline: str) -> None:
    automix, order = method(q_order=q_order, pipeline=pipeline), []
    for kind in ("mixed", "clean"):
        original = getattr(automix, f"{kind}_loss")
        setattr(automix, f"{kind}_loss", lambda *a, kind=kind, f=original: (order.append(kind), f(*a))[1])
    step(automix)
    assert order == q_order.split("_")


def gradient(automix: AutoMix) -> Tensor:
    """Of the Mix Block's weights, as one vector."""
    return torch.cat([p.grad.flatten() for p in automix.mix_block.parameters() if p.grad is not None])


def test_a_skipped_step_may_keep_its_mask_loss() -> None:
    kept, gone, all_of_it = method(skip_lam_loss=False), method(), method()
    step(kept, skip=True)
    step(gone, skip=True)
    step(all_of_it)
    assert gradient(kept).any() and not gradient(gone).any()
    assert not torch.allclose(gradient(kept), gradient(all_of_it))  # the MCE is missing


def test_the_variance_is_over_the_batch_and_falls_with_gamma() -> None:
    mask = torch.rand(4, 1, 8, 8)
    plain = {"mask_std_floor": 0.0, "lam_loss_over": "batch", "lam_loss_schedule": "cosine"}
    without = method(**plain)
    automix = method(**plain, mask_variance_weight=2.0, mask_variance_schedule="gamma")
    without.progress = automix.progress = 0.5
    reward = without.mask_loss(mask, 0.3) - automix.mask_loss(mask, 0.3)
    assert reward.item() == pytest.approx(0.05 * 2 * mask.var(unbiased=False).item(), rel=1e-5)


def test_everything_runs_in_double() -> None:
    """So does Eq. 7, whose numbers a float32 intermediate would round."""
    for options in ({}, {"preset": "openmixup"}, {"loss": "bce", "smoothing": 0.1}, {"pipeline": "joint"}):
        automix = method(**options).double()
        output = automix(
            torch.randn(4, 3, 32, 32).double(), torch.arange(4), torch.Generator().manual_seed(0)
        )
        output.loss.backward()
        assert output.loss.dtype == output.mask.dtype == torch.float64
        assert automix.mix_block.project(torch.randn(1, 128, 2, 2).double()).similarity.dtype == torch.float64


@pytest.mark.parametrize("preset", sorted(file.stem for file in PRESETS.glob("*.yaml")))
def test_every_preset_trains(preset: str) -> None:
    automix = method(preset=preset)
    step(automix)
    automix.after_step(0.5)
    assert automix.options.preset == preset


def test_variants_stand_on_openmixup() -> None:
    base, vit = (load_options("automix", {"preset": name}) for name in ("openmixup", "openmixup_vit"))
    assert vit.order == base.order and vit.lam_loss_schedule == "compounding" and vit.momentum_hold == 0.25
