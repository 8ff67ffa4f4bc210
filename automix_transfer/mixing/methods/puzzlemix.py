"""PuzzleMix (Kim et al., 2020): the mask of blocks that shows the most saliency of both images at the least
seams, then transport.

The clean images are classified first, for the gradient at their pixels: 2 passes beside the 3 of training on
the mixed ones. For three mask levels the authors use alpha-beta swap with 32-bit costs, which overflow; here
the optimum itself is found by one minimum cut a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between, blocks_problem, check_blocks, checked
from automix_transfer.mixing.draw import PairDraw, Rng, Size
from automix_transfer.mixing.pairs import PairOptions, blend, partners_of
from automix_transfer.mixing.parts.grid_labels import solve_grid
from automix_transfer.mixing.parts.saliency import SalientMethod, block_means, block_shares, enlarge
from automix_transfer.mixing.parts.transport import move_blocks, plan_transport

FINEST = 16  #: blocks a side that move, at most


@dataclass
class PuzzleMixOptions(PairOptions):
    """Options of `PuzzleMix`, named as in its paper.

    Attributes:
        blocks: blocks a side, one of them drawn for each batch; [2, 4, 8] on ImageNet.
        levels: values of a mask, from 0 to 1.
        beta, gamma, eta: weights of smooth masks, of seams in the image, and of the prior on the mask's mean.
        seam_size: pixels over which images are averaged before their seams are measured.
        transport: whether blocks move; ``transport_strength``: the price of distance.
        transport_size: blocks that move have at most this many pixels a side (0: those of the mask), but
            there are never more than 16 a side; the comparisons behind the tables moved none where the mask's
            blocks were larger.
        clean_weight: of the loss on the clean images, trained on too; 0 uses it for the saliency only (CIFAR;
            1: Tiny-ImageNet).
    """

    blocks: list[int] = checked([2, 4, 8, 16], blocks_problem)
    levels: int = between(3, 2, 16)
    beta: float = between(1.2)
    # above 1 a pair of blocks could be paid for differing, and no cut would be the optimum
    gamma: float = between(0.5, 0, 1)
    eta: float = between(0.2)
    seam_size: int = between(4, 1)
    transport: bool = True
    transport_strength: float = between(0.8)
    transport_size: int = between(4)
    clean_weight: float = between(0.0)


@dataclass(frozen=True)
class PuzzleMixDraw(PairDraw):
    """The number of blocks a side."""

    blocks: int


def mask_problem(
    plain: Tensor, shares: Tensor, draw: PuzzleMixDraw, options: PuzzleMixOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """The prices of `solve_grid`: for each level (N, b, b, n), and for neighbours below (N, b-1, b) and to
    the right (N, b, b-1).

    Args:
        plain: images in [0, 1], (N, C, H, W).
        shares: saliency shares of the blocks, (N, b, b).
    """
    partner, b, n = draw.permutation.to(shares.device), draw.blocks, options.levels
    beta = options.beta / (16 * b)
    u_i, u_j = shares.clone(), shares[partner]
    cells = seam_cells(plain, b, options.seam_size)
    choices, weights, scale = (cells[partner], cells), [], beta * options.gamma
    for dimension in (1, 2):
        # d_pq: the seams where the upper or left block is of image p, and the other of q; 1: image i, 0: j
        (d00, d01), (d10, d11) = (
            [scale * seams(upper, lower, b, dimension) for lower in choices] for upper in choices
        )
        # a block that shows image i costs what its partner's saliency would have been worth, and the seams of
        # that choice
        for first, if_i, if_j in ((0, d10 + d11, d01 + d00), (1, d01 + d11, d10 + d00)):
            u_j.narrow(dimension, first, b - 1).add_(if_i / 2)
            u_i.narrow(dimension, first, b - 1).add_(if_j / 2)
        weights.append(((d10 + d01 - d11 - d00) / 2 + beta).clamp(min=0))
    shown_j = torch.linspace(0, 1, n, device=shares.device)
    chances = [math.comb(n - 1, k) * draw.lam ** (n - 1 - k) * (1 - draw.lam) ** k for k in range(n)]
    prior = -torch.log(torch.tensor(chances, device=shares.device, dtype=torch.float32) + 1e-8)
    unary = (1 - shown_j) * u_j.unsqueeze(-1) + shown_j * u_i.unsqueeze(-1) + options.eta / b**2 * prior
    return unary, weights[0], weights[1]


def seam_cells(images: Tensor, blocks: int, size: int) -> Tensor:
    """Images (N, C, H, W) averaged over ``size`` pixels, or what of it divides a block: (N, C, h, w)."""
    sides = [(length, length // blocks) for length in images.shape[2:]]
    return block_means(images, tuple(length // math.gcd(side, min(size, side)) for length, side in sides))


def seams(upper: Tensor, lower: Tensor, blocks: int, dimension: int) -> Tensor:
    """Mean |A_q - B_q+1| across each border between blocks of A and B (N, C, h, w) of `seam_cells`, along
    spatial dimension 1 or 2."""
    a, b = (upper, lower) if dimension == 1 else (upper.transpose(2, 3), lower.transpose(2, 3))
    step = a.shape[2] // blocks
    # (N, blocks - 1, cells along the border)
    difference = (a[:, :, step - 1 : -1 : step] - b[:, :, step::step]).abs().mean(dim=1)
    along = difference.unflatten(2, (blocks, -1)).mean(dim=3)
    return along if dimension == 1 else along.transpose(1, 2)


def solve_masks(
    plain: Tensor, shares: Tensor, draw: PuzzleMixDraw, options: PuzzleMixOptions, threads: int | None = None
) -> Tensor:
    """The best masks (N, b, b): the share of image i in each block."""
    problem = [part.cpu().double().numpy() for part in mask_problem(plain, shares, draw, options)]
    labels = solve_grid(problem[0], problem[1], problem[2], threads)
    return 1 - torch.from_numpy(labels).to(shares.device, torch.float32) / (options.levels - 1)


def transport_blocks(size: Size, blocks: int, pixels: int) -> Size:
    """Blocks (h, w) that move: the mask's, or parts of them of at most ``pixels`` a side that divide them.

    Never more than 16 a side beside the mask's own: prices are kept for each pair of places, 65,536 of them
    for 16×16.
    """

    def count(length: int) -> int:
        side, least = length // blocks, -(-length // FINEST)
        fitting = [part for part in range(least, max(pixels, least) + 1) if side % part == 0]
        return length // (max(fitting, default=side) if pixels else side)

    return tuple(count(length) for length in size)


class PuzzleMix(SalientMethod):
    """Eq. 2 on the best puzzle of both images, found anew for each batch; the label of i is the mean of its
    mask."""

    options_class = PuzzleMixOptions

    def check_size(self, size: Size) -> None:
        check_blocks(self.options.blocks, size)

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> PuzzleMixDraw:
        """One λ, one permutation and one number of blocks for the batch."""
        self.check_size(size)
        pairs, blocks = super().draw(count, size, rng, lam), self.options.blocks
        return PuzzleMixDraw(**vars(pairs), blocks=blocks[int(torch.randint(len(blocks), (), generator=rng))])

    def mix_salient(self, images: Tensor, labels: Tensor, draw: PuzzleMixDraw, saliency: Tensor) -> Mixed:
        options, size, grid = self.options, images.shape[2:], (draw.blocks, draw.blocks)
        shares = block_shares(saliency, grid)
        masks = solve_masks(self.plain(images).nan_to_num(), shares, draw, options)
        own, other = images, partners_of(images, draw)
        if options.transport:
            moving = transport_blocks(size, draw.blocks, options.transport_size)
            fine = block_shares(saliency, moving) if moving != grid else shares
            shown, strength = enlarge(masks, moving).squeeze(1), options.transport_strength
            own = move_blocks(own, plan_transport(fine, shown, strength), moving)
            other = move_blocks(other, plan_transport(partners_of(fine, draw), 1 - shown, strength), moving)
        mask = enlarge(masks, size)
        return Mixed(blend(own, other, mask), mask.to(images.dtype), masks.mean(dim=(1, 2)))
