"""PuzzleMix's transport: an image's salient blocks move to where the mask shows them.

A plan is (N, M) int64: for each of M places the block of the image that goes there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from automix_transfer.mixing.draw import Size


def distance_costs(blocks: Size, device: torch.device) -> Tensor:
    """Squared distance between blocks (M, M), as a share of the longest squared side."""
    rows, columns = torch.meshgrid(
        *(torch.arange(n, device=device, dtype=torch.float32) for n in blocks), indexing="ij"
    )
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return (places.unsqueeze(1) - places.unsqueeze(0)).square().sum(dim=2) / max(max(blocks) - 1, 1) ** 2


def plan_transport(shares: Tensor, mask: Tensor, strength: float = 0.8) -> Tensor:
    """The plan for an image with block shares (N, h, w) of saliency that is shown by ``mask`` (N, h, w).

    Moving block i to place j costs strength·dist² - share_i where the mask shows the place. Each round every
    block asks for its cheapest place, a place goes to the cheapest block, and the others pay 1 more for it
    from then on; after max(h, w) rounds (or when nobody has lost) that is the plan. Places that nobody wants
    keep their own block: nothing is shown there.
    """
    count, height, width = shares.shape
    places = height * width
    gain = shares.reshape(count, places, 1) * (mask.reshape(count, 1, places) > 0)
    cost = strength * distance_costs((height, width), shares.device) - gain
    block = torch.arange(places, device=shares.device).expand(count, places)
    wanted = cost.argmin(dim=2)
    for left in reversed(range(max(height, width))):
        price = cost.gather(2, wanted.unsqueeze(2)).squeeze(2)
        best = torch.full_like(price, torch.inf).scatter_reduce(1, wanted, price, "amin")
        # of equal prices the first block wins
        candidates = torch.where(price == best.gather(1, wanted), block, places)
        winner = torch.full_like(wanted, places).scatter_reduce(1, wanted, candidates, "amin")
        lost = winner.gather(1, wanted) != block
        if left == 0 or not lost.any():
            break
        sample, row = lost.nonzero(as_tuple=True)  # only their rows have changed
        rows = cost[sample, row]
        rows[torch.arange(len(row), device=row.device), wanted[sample, row]] += 1
        cost[sample, row] = rows
        wanted[sample, row] = rows.argmin(dim=1)
    return torch.where(winner < places, winner, block)


def move_blocks(images: Tensor, plan: Tensor, blocks: Size) -> Tensor:
    """Images (N, C, H, W), cut into blocks (h, w) and laid out again as ``plan`` (N, h·w) says."""
    count, channels, height, width = images.shape
    high, wide = height // blocks[0], width // blocks[1]
    pieces = images.reshape(count, channels, blocks[0], high, blocks[1], wide)
    pieces = pieces.permute(0, 2, 4, 1, 3, 5).reshape(count, plan.shape[1], -1)
    moved = pieces.gather(1, plan.unsqueeze(2).expand_as(pieces))
    return moved.reshape(count, *blocks, channels, high, wide).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
