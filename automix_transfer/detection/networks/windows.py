"""Attention of a plain vision transformer within windows of its map, as ViTDet's detectors have it
(arXiv 2203.16527, Section 3).

Attention over a whole image costs memory and time by the square of its patches. Here all blocks but the last
of each quarter of the depth attend within windows that do not overlap. Nothing of the network is replaced:
hooks cut the tokens before a block's attention and join them behind it, so a block's other layers and its
stochastic depth see images as ever, and keys of weights stay. A map that is no larger than a window gives the
same bits as the whole attention. Patches that only fill the last windows are seen by nobody. Prefix tokens
(class, distillation) are in every window, and the mean of their values goes on.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.errors import UserError

QUARTERS = 4  #: whose last blocks attend to the whole map


class Windows:
    """Hooks on the attention of ``blocks``.

    Args:
        side: of a window, in patches.
        prefix: number of prefix tokens.

    Attributes:
        grid: (H, W) in patches of the images that come next; None: attention is whole in all blocks.

    Raises:
        UserError: a block without the usual attention.
    """

    def __init__(self, blocks: nn.ModuleList, side: int, prefix: int) -> None:
        self.side, self.prefix = side, prefix
        self.grid: tuple[int, int] | None = None
        whole = {len(blocks) * quarter // QUARTERS - 1 for quarter in range(1, QUARTERS + 1)}
        for number, block in enumerate(blocks):
            if not isinstance(attention := getattr(block, "attn", None), nn.Module):
                raise UserError(
                    f"MODEL.TIMM.WINDOW {side} needs blocks with one attention each, which a "
                    f"{type(block).__name__} is not; set it to 0"
                )
            if number not in whole:
                attention.register_forward_pre_hook(self._cut, with_kwargs=True)
                attention.register_forward_hook(self._join)

    def _shape(self) -> tuple[int, int, int, int]:
        """Height and width of a window, in patches, and how many stand in a column and in a row."""
        assert self.grid is not None
        (height, width), side = self.grid, self.side
        tall, wide = min(side, height), min(side, width)
        return tall, wide, -(-height // tall), -(-width // wide)

    def _cut(
        self, _module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Tokens (N, P + H·W, C) -> (N·windows, P + area, C), with a mask where patches fill up."""
        if self.grid is None:
            return None
        tokens, prefix = inputs[0], self.prefix
        patches = self._windows(tokens[:, prefix:].unflatten(1, self.grid))
        count = len(patches) // len(tokens)
        cut = torch.cat([tokens[:, :prefix].repeat_interleave(count, 0), patches], 1)
        tall, wide, rows, columns = self._shape()
        if (rows * tall, columns * wide) != self.grid:
            there = self._windows(tokens.new_ones(1, *self.grid, 1))[..., 0]
            seen = F.pad(there.log(), (prefix, 0))  # 0, and minus infinity where patches fill up
            options = {**options, "attn_mask": seen.repeat(len(tokens), 1)[:, None, None]}
        return (cut, *inputs[1:]), options

    def _windows(self, patches: Tensor) -> Tensor:
        """(N, H, W, C) -> (N·windows, area, C), filled up with zeros."""
        tall, wide, rows, columns = self._shape()
        height, width = patches.shape[1:3]
        patches = F.pad(patches, (0, 0, 0, columns * wide - width, 0, rows * tall - height))
        return (
            patches.unflatten(2, (columns, wide))
            .unflatten(1, (rows, tall))
            .transpose(2, 3)
            .flatten(3, 4)
            .flatten(0, 2)
        )

    def _join(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The inverse of `_cut`."""
        if self.grid is None:
            return None
        (height, width), prefix = self.grid, self.prefix
        tall, wide, rows, columns = self._shape()
        windows = output.unflatten(0, (-1, rows * columns))
        patches = windows[:, :, prefix:].unflatten(2, (tall, wide)).unflatten(1, (rows, columns))
        whole = patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]
        return torch.cat([windows[:, :, :prefix].mean(1), whole.flatten(1, 2)], 1)
