"""The Mix Block against Eqs. 4-6 written out by hand, and its range, symmetry and sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.mix_block import MixBlock, RandomGrids
from automix_transfer.mixing.pairs import blend


def lively(channels=6, **options):
    """A Mix Block whose masks are far from constant."""
    torch.manual_seed(0)
    return MixBlock(channels, **{"init_std": 1.0, "normalize": False, **options})


def mask_by_hand(block, z_i, z_j, lam):
    """Eqs. 5 and 6 for one pair with loops over positions, in float64."""
    _, height, width = z_i.shape
    flat_i = torch.cat([z_i, torch.full((1, height, width), lam)]).flatten(1).double()
    flat_j = torch.cat([z_j, torch.full((1, height, width), 1 - lam)]).flatten(1).double()
    w_p, b_p = block.w_p.weight[:, :, 0, 0].double(), block.w_p.bias.double()
    w_z, b_z = block.w_z.weight[0, :, 0, 0].double(), block.w_z.bias.double()
    value_of = flat_j if block.options.value == "pair" else flat_i
    mask = torch.zeros(height * width, dtype=torch.float64)
    for p in range(height * width):
        scores = torch.stack(
            [
                (w_p @ flat_i[:, p] + b_p) @ (w_p @ flat_j[:, q] + b_p) / math.sqrt(len(b_p))
                for q in range(height * width)
            ]
        )
        weights = scores.exp() / scores.exp().sum()
        s = 1 / (
            1 + torch.exp(-sum(weights[q] * (w_z @ value_of[:, q] + b_z) for q in range(height * width)))
        )
        mask[p] = 1 - s if block.options.value == "pair" else s
    return mask.view(height, width)


@pytest.mark.parametrize("value", ["pair", "own"])
def test_mask_equals_equations_5_and_6_by_hand(value):
    block = lively(value=value)
    z_i, z_j = torch.randn(2, 1, 6, 2, 3)
    expected = mask_by_hand(block, z_i[0], z_j[0], 0.3)
    assert torch.allclose(block(z_i, z_j, 0.3, (2, 3))[0, 0].double(), expected, atol=1e-5)


def test_similarity_rows_are_distributions():
    block = lively()
    rows = block.attention(
        block.project(torch.randn(2, 6, 3, 4)), block.project(torch.randn(2, 6, 3, 4)), 0.5
    ).sum(dim=-1)
    assert torch.allclose(rows, torch.ones_like(rows))


@settings(max_examples=25)
@given(
    height=st.integers(1, 61),
    width=st.integers(1, 61),
    lam=st.floats(0, 1),
    order=st.sampled_from(["sigmoid_upsample", "upsample_sigmoid"]),
    upsampling=st.sampled_from(["nearest", "bilinear"]),
    lam_embedding=st.booleans(),
    normalize=st.booleans(),
)
def test_mask_has_the_image_size_and_stays_in_range(
    height, width, lam, order, upsampling, lam_embedding, normalize
):
    block = lively(order=order, upsampling=upsampling, lam_embedding=lam_embedding, normalize=normalize)
    mask = block(torch.randn(2, 6, 3, 4) * 10, torch.randn(2, 6, 3, 4) * 10, lam, (height, width))
    assert mask.shape == (2, 1, height, width)
    assert mask.min() >= 0 and mask.max() <= 1


def test_masks_of_a_pair_sum_to_one():
    """s_j = 1 - s_i: mixing (x_i, x_j) by s_i gives the same image as mixing (x_j, x_i) by s_j."""
    x_i, x_j, mask = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    assert torch.allclose(blend(x_i, x_j, mask), blend(x_j, x_i, 1 - mask), atol=1e-6)
    assert torch.allclose(
        blend(x_i, torch.zeros_like(x_i), mask) + blend(torch.zeros_like(x_i), x_i, mask), x_i, atol=1e-6
    )


def test_orders_agree_for_nearest_upsampling():
    first, second = lively(order="sigmoid_upsample"), lively(order="upsample_sigmoid")
    z_i, z_j = torch.randn(2, 2, 6, 3, 3)
    assert torch.equal(first(z_i, z_j, 0.4, (10, 7)), second(z_i, z_j, 0.4, (10, 7)))


@pytest.mark.parametrize("value", ["pair", "own"])
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_first_masks_follow_lam_or_are_one_half(value, slope):
    block = MixBlock(64, value=value, lam_slope=slope)
    for lam in (0.0, 0.3, 0.5, 1.0):
        mask = block(torch.rand(4, 64, 4, 4), torch.rand(4, 64, 4, 4), lam, (8, 8))
        assert (mask - 1 / (1 + math.exp(-slope * (lam - 0.5)))).abs().max() < 0.05


def test_normalised_masks_do_not_depend_on_the_size_or_the_mean_of_the_features():
    block = lively(normalize=True)
    z_i, z_j = torch.randn(2, 2, 6, 3, 4)
    assert torch.allclose(
        block(z_i, z_j, 0.3, (3, 4)), block(50 * z_i + 7, z_j / 50 - 7, 0.3, (3, 4)), atol=1e-3
    )
    assert torch.isfinite(block(torch.zeros_like(z_i), z_j, 0.3, (3, 4))).all()


def test_published_initialisation_starts_at_the_saddle_and_ours_does_not():
    """With W_P near 0 every row of P is uniform and every mask flat, whatever the values are."""
    torch.manual_seed(0)
    z_i, z_j = torch.randn(2, 8, 64, 8, 8)
    spread = {}
    for std in (0.01, 1.0):
        block = MixBlock(64, init_std=3.0, similarity_std=std)
        spread[std] = block(z_i, z_j, 0.5, (8, 8)).flatten(1).std(dim=1).mean().item()
    assert spread[0.01] < 0.01 < 0.05 < spread[1.0]


def test_random_grids_cover_lam_of_the_cells():
    z = torch.zeros(5, 2, 4, 4)
    for lam in (0.0, 0.25, 0.5, 1.0):
        mask = RandomGrids().pair_mask(z, z, lam, (8, 8))
        assert torch.equal(mask.mean(dim=(1, 2, 3)), torch.full((5,), lam))


@pytest.mark.parametrize("option", [{"value": "both"}, {"order": "sigmoid"}])
def test_unknown_option_names_the_choices(option):
    with pytest.raises(UserError, match="choose one of"):
        MixBlock(4, **option)


@pytest.mark.parametrize("lam_embedding", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_one_projection_of_a_batch_serves_all_pairs(lam_embedding, normalize):
    """Masks and gradients are those of convolutions over concat(z, λ), for each image of each pair apart."""
    block, other = (lively(lam_embedding=lam_embedding, normalize=normalize, value="own") for _ in range(2))
    z, permutation = torch.randn(5, 6, 3, 4), torch.tensor([3, 0, 4, 2, 1])

    def by_concatenation(z_i, z_j, lam):
        embedded = [
            torch.cat([block.normalized(z), torch.full_like(z[:, :1], share)], dim=1)
            if lam_embedding
            else block.normalized(z)
            for z, share in ((z_i, lam), (z_j, 1 - lam))
        ]
        query, key = (block.w_p(e).flatten(2) for e in embedded)
        attention = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(3), dim=-1)
        logits = attention @ block.w_z(embedded[0]).flatten(2).transpose(1, 2)
        return torch.sigmoid(logits.transpose(1, 2).unflatten(2, (3, 4)))

    weight = torch.randn(5, 1, 3, 4)
    first = [by_concatenation(z, z[permutation], lam) for lam in (0.2, 0.7)]
    (first[0] * weight + first[1]).sum().backward()
    projected = other.project(z)
    second = [other.pair_mask(projected, projected[permutation], lam, (3, 4)) for lam in (0.2, 0.7)]
    (second[0] * weight + second[1]).sum().backward()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, second, strict=True))
    for a, b in zip(block.parameters(), other.parameters(), strict=True):
        assert a.grad.abs().sum() > 0 and torch.allclose(a.grad, b.grad, atol=1e-5)
    few = other.pair_mask(projected[:2], projected[permutation[:2]], 0.2, (3, 4))
    assert torch.allclose(few, second[0][:2], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_projection_is_in_half_precision_and_nothing_else(dtype):
    torch.manual_seed(0)
    block = MixBlock(64, init_std=3.0)
    z = torch.randn(4, 64, 5, 5, requires_grad=True)
    expected = block(z, z.flip(0), 0.301, (5, 5))
    with torch.autocast("cpu", dtype=dtype):
        projected = block.project(z)
        mask = block.pair_mask(projected, block.project(z.flip(0)), 0.301, (5, 5))
    # W_P's outputs are rounded
    assert torch.equal(projected.similarity, projected.similarity.to(dtype).float())
    assert mask.dtype == projected.value.dtype == torch.float32 and not torch.equal(
        projected.value, projected.value.to(dtype).float()
    )
    assert expected.std() > 0.05 and (mask - expected).abs().max() < 0.05
    mask.sum().backward()
    assert torch.isfinite(z.grad).all() and block.w_p.weight.grad.abs().sum() > 0


def test_mixing_gives_the_images_back_where_the_mask_is_one_or_zero():
    x_i, x_j = torch.randn(2, 2, 3, 4, 4)
    assert torch.equal(blend(x_i, x_j, torch.ones(2, 1, 4, 4)), x_i) and torch.equal(
        blend(x_i, x_j, torch.zeros(2, 1, 4, 4)), x_j
    )
    mask = torch.rand(2, 1, 4, 4, requires_grad=True)
    (blend(x_i, x_j, mask) * x_i).sum().backward()
    assert torch.allclose(mask.grad, ((x_i - x_j) * x_i).sum(dim=1, keepdim=True), atol=1e-5)
