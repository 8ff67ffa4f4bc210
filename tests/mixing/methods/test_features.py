"""Methods that mix features or look at attention: ManifoldMix, AlignMix, TransMix, AttentiveMix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.methods.alignmix import AlignMix, AlignMixDraw, AlignMixOptions, mix_aligned
from automix_transfer.mixing.methods.attentivemix import attentive_mask
from automix_transfer.mixing.methods.manifoldmix import ManifoldMixDraw
from automix_transfer.mixing.methods.mixup import combine
from automix_transfer.mixing.methods.transmix import attention_share
from automix_transfer.mixing.pairs import BoxDraw
from automix_transfer.mixing.parts.attention import class_attention
from automix_transfer.mixing.parts.hooks import replaced_output
from automix_transfer.mixing.parts.sinkhorn import sinkhorn
from automix_transfer.models import create_encoder
from automix_transfer.models.taps import features
from tests.mixing.tiny_methods import SIZE, batch, tiny_method, tiny_resnet, tiny_vit

SEEDS = st.integers(0, 10_000)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ManifoldMix


def test_manifold_mixing_at_the_input_is_mixup() -> None:
    method = tiny_method("manifoldmix").eval()
    images, labels = batch(method)
    draw = ManifoldMixDraw(0.3, torch.tensor([1, 2, 3, 4, 5, 0]), 0)
    output = method.step(images, labels, draw)
    assert torch.allclose(output.mixed, combine(images, PairDraw(0.3, draw.permutation)))


@pytest.mark.parametrize("layer", [1, 2])
def test_manifold_mixing_replaces_the_features_of_its_layer(layer: int) -> None:
    method = tiny_method("manifoldmix", layers=[layer]).eval()
    images, labels = batch(method)
    draw = ManifoldMixDraw(0.3, torch.tensor([1, 2, 3, 4, 5, 0]), layer)
    name = f"layer{layer}"
    with replaced_output(method.encoder, name, lambda h: combine(h, draw)):
        mixed = features(method.encoder, images, "layer4")
    plain = features(method.encoder, images, name)
    behind = getattr(method.encoder, f"layer{layer + 1}")(0.3 * plain + 0.7 * plain[draw.permutation])
    for stage in range(layer + 2, 5):
        behind = getattr(method.encoder, f"layer{stage}")(behind)
    assert torch.allclose(mixed, behind, atol=1e-5)
    assert method.step(images, labels, draw).mixed is None
    assert torch.equal(features(method.encoder, images, name), plain)  # the hook is gone


def test_manifold_mixing_with_lam_one_is_vanilla() -> None:
    method = tiny_method("manifoldmix").eval()
    images, labels = batch(method)
    for layer in (0, 1, 2):
        loss = method.step(images, labels, ManifoldMixDraw(1.0, torch.arange(5, -1, -1), layer)).loss
        assert torch.allclose(loss, functional.cross_entropy(method.encoder(images), labels), atol=1e-5)


def test_a_layer_that_does_not_run_is_an_error_and_not_vanilla() -> None:
    encoder = tiny_resnet()
    encoder.unused = torch.nn.Identity()
    with (
        pytest.raises(UserError, match="'unused'.*train.compile=false"),
        replaced_output(encoder, "unused", lambda h: h),
    ):
        encoder(torch.randn(2, 3, SIZE, SIZE))


# AlignMix


@settings(max_examples=10)
@given(
    seed=SEEDS, places=st.integers(1, 9), channels=st.integers(1, 5), scale=st.sampled_from([0.01, 1.0, 30.0])
)
def test_plans_have_exact_columns_and_nearly_exact_rows(
    seed: int, places: int, channels: int, scale: float
) -> None:
    x, y = scale * torch.randn(2, 3, places, channels, generator=rng(seed))
    plan = sinkhorn(x, y, epsilon=0.1 * scale**2, iterations=500, tolerance=1e-6 * scale**2) * places
    assert torch.allclose(plan.sum(dim=1), torch.ones(3, places), atol=1e-3)
    assert torch.allclose(plan.sum(dim=2), torch.ones(3, places), atol=0.05)


def test_sinkhorn_is_a_linear_program_where_epsilon_is_small() -> None:
    """Against the best assignment, which is what an exact plan with uniform marginals can always be."""
    from scipy.optimize import linear_sum_assignment

    x, y = torch.randn(2, 1, 6, 3, generator=rng(0))
    plan = sinkhorn(x, y, epsilon=0.01, iterations=1000, tolerance=0.0)[0] * 6
    rows, columns = linear_sum_assignment(torch.cdist(x, y)[0].square().numpy())
    assert np.allclose(plan.numpy()[rows, columns], 1, atol=0.05)


def test_sinkhorn_is_in_float32_under_autocast() -> None:
    """Its products in bfloat16 would move the plan by .1 and more of a place's mass."""
    x, y = torch.randn(2, 16, 8, generator=rng(4)).bfloat16(), torch.randn(2, 16, 8, generator=rng(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plan = sinkhorn(x, y)
    assert torch.equal(plan, sinkhorn(x, y))


def test_sinkhorn_survives_what_is_not_finite() -> None:
    x = torch.full((1, 4, 2), torch.inf)
    assert torch.allclose(sinkhorn(x, x), torch.full((1, 4, 4), 1 / 16))


def test_aligning_a_shuffled_map_undoes_the_shuffle() -> None:
    own = 3 * torch.randn(1, 8, 3, 3, generator=rng(0))
    shuffled = own.flatten(2)[:, :, torch.randperm(9, generator=rng(1))].view_as(own)
    maps = torch.cat([own, shuffled])
    for move in (True, False):
        draw = AlignMixDraw(0.4, torch.tensor([1, 0]), True, move)
        mixed = mix_aligned(maps, draw, AlignMixOptions(epsilon=0.01))
        assert torch.allclose(mixed[0], own[0] if move else shuffled[0], atol=1e-2)


def test_alignment_mixes_the_last_map_and_lets_gradients_through() -> None:
    method = tiny_method("alignmix")
    images, labels = batch(method)
    draw = AlignMixDraw(0.4, torch.arange(5, -1, -1), True, True)
    output = method.step(images, labels, draw)
    output.loss.backward()
    assert output.mixed is None and all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters()
    )
    one = method.step(images, labels, AlignMixDraw(1.0, draw.permutation, True, True)).loss
    assert torch.allclose(one, functional.cross_entropy(method.encoder(images), labels), atol=1e-5)


def test_alignment_moves_places_where_a_network_has_its_channels_last() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("swin_tiny_patch4_window7_224", 5, image_size=56).eval()
    method = AlignMix(encoder)
    images, labels = batch(method, count=2, size=(56, 56))
    draw = AlignMixDraw(0.4, torch.tensor([1, 0]), True, True)
    mixed = mix_aligned(features(encoder, images, method.layer), draw, method.options)
    logits = encoder.forward_head(encoder.norm(mixed.permute(0, 2, 3, 1)))
    expected = 0.4 * functional.cross_entropy(logits, labels) + 0.6 * functional.cross_entropy(
        logits, labels[draw.permutation]
    )
    assert torch.allclose(method.step(images, labels, draw).loss, expected, atol=1e-6)


# TransMix


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"qk_norm": True}])
def test_attention_is_what_the_block_computes(fused: bool, options: dict) -> None:
    torch.manual_seed(0)
    encoder = tiny_vit(**options).eval()
    images = torch.randn(3, 3, SIZE, SIZE)
    block = encoder.blocks[-1].attn
    block.fused_attn = fused
    with class_attention(encoder) as found:
        logits = encoder(images)
    block.fused_attn, seen = False, []
    handle = block.attn_drop.register_forward_hook(lambda _m, _i, output: seen.append(output))
    assert torch.allclose(encoder(images), logits, atol=1e-5)
    handle.remove()
    assert found[0].shape == (3, 16) and not found[0].requires_grad
    assert torch.allclose(found[0], seen[0].mean(dim=1)[:, 0, encoder.num_prefix_tokens :], atol=1e-6)


@settings(max_examples=25)
@given(
    seed=SEEDS, box=st.tuples(st.integers(0, 31), st.integers(0, 31), st.integers(1, 32), st.integers(1, 32))
)
def test_label_is_half_area_and_half_attention(seed: int, box: tuple[int, int, int, int]) -> None:
    mask = torch.ones(2, 1, 32, 32)
    mask[:, :, box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = 0
    attention = torch.rand(2, 16, generator=rng(seed))
    share = attention_share(attention, mask, (4, 4))
    centres = mask[:, 0, ::8, ::8].flatten(1)  # the pixel that nearest downsampling takes
    assert torch.allclose(share, (attention * centres).sum(dim=1) / attention.sum(dim=1), atol=1e-6)
    assert torch.allclose(attention_share(torch.ones(2, 16), mask, (4, 4)), centres.mean(dim=1))
    for odd in (torch.zeros(2, 16), torch.full((2, 16), torch.nan)):
        assert torch.allclose(attention_share(odd, mask, (4, 4)), centres.mean(dim=1))


def test_the_step_uses_the_attention_of_its_own_pass() -> None:
    method = tiny_method("transmix", smoothing=0.0).eval()
    images, labels = batch(method)
    draw = BoxDraw(0.75, torch.arange(5, -1, -1), (0, 16, 0, 16))
    output = method.step(images, labels, draw)
    with class_attention(method.encoder) as attention:
        logits = method.encoder(output.mixed)
    share = attention_share(attention[0], output.mask, (4, 4))
    lam = (0.75 + share) / 2
    ce = [functional.cross_entropy(logits, y, reduction="none") for y in (labels, labels.flip(0))]
    assert torch.allclose(output.loss, (lam * ce[0] + (1 - lam) * ce[1]).mean(), atol=1e-6)
    area_only = tiny_method("transmix", smoothing=0.0, attention_weight=0.0).eval().step(images, labels, draw)
    assert torch.allclose(area_only.loss, (0.75 * ce[0] + 0.25 * ce[1]).mean(), atol=1e-6)


# AttentiveMix


@settings(max_examples=25)
@given(
    seed=SEEDS,
    grid=st.sampled_from([(7, 7), (2, 3), (1, 1)]),
    cell=st.sampled_from([(2, 3), (4, 4)]),
    share=st.floats(0, 1),
)
def test_the_most_attended_cells_are_pasted(
    seed: int, grid: tuple[int, int], cell: tuple[int, int], share: float
) -> None:
    total, size = grid[0] * grid[1], (grid[0] * cell[0], grid[1] * cell[1])
    cells = max(int(share * total), 1)
    attention = torch.randn(2, *grid, generator=rng(seed))
    mask = attentive_mask(attention, cells, size)
    small = functional.interpolate(mask, size=grid)[:, 0]
    assert (small.flatten(1).sum(dim=1) == cells).all()
    for n in range(2):
        kept, left = attention[n][small[n] == 1], attention[n][small[n] == 0]
        assert len(left) == 0 or kept.min() >= left.max()


def test_attentive_labels_are_six_of_forty_nine_or_what_lam_says() -> None:
    images, attention = torch.randn(2, 3, 28, 28), torch.randn(2, 7, 7)
    draw = PairDraw(0.5, torch.tensor([1, 0]))
    six, plus = (tiny_method("attentivemix", cells=cells) for cells in (6, 0))
    assert six.mix_attended(images, draw, attention).lam.tolist() == pytest.approx([6 / 49] * 2)
    assert plus.mix_attended(images, draw, attention).lam.tolist() == pytest.approx([24 / 49] * 2)
    nothing = plus.mix_attended(images, PairDraw(0.0, draw.permutation), attention)
    assert nothing.lam.tolist() == pytest.approx([1 / 49] * 2)  # at least one cell
    broken = six.mix_attended(images, draw, torch.full((2, 7, 7), math.nan))
    assert torch.isfinite(broken.images).all()


def test_the_teacher_is_frozen_unsaved_and_in_eval_mode() -> None:
    method = tiny_method("attentivemix").train()
    before = {name: value.clone() for name, value in method.teacher.network.state_dict().items()}
    images, labels = batch(method)
    for attention in ("mean", "released"):
        method.options.attention = attention
        method(images, labels, rng(0)).loss.backward()
        assert not method.teacher.network.training
        assert all(
            torch.equal(value, before[name]) for name, value in method.teacher.network.state_dict().items()
        )
    assert not any("teacher" in name for name in method.state_dict())
    assert tiny_resnet().state_dict().keys() == {
        name.removeprefix("encoder.") for name in method.state_dict()
    }
