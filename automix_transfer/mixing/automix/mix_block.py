"""The Mix Block M_φ: from two feature maps and λ to a mask (Eqs. 5 and 6), by which `blend` mixes (Eq. 4).

Shape suffixes: N pairs, C channels, D = C // 2 embedded channels, I and J the h·w positions of both maps.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.mixing.automix.options import AutoMixOptions
from automix_transfer.mixing.checks import check
from automix_transfer.mixing.precision import at_least_float32, full_precision


@dataclass(frozen=True)
class Projected:
    """Feature maps before λ is known: W_P z (N, D, h, w) and W_Z z (N, 1, h, w), float32 or float64.

    λ and the biases only shift them, so one projection of a batch serves both sides of all pairs, for any λ.
    """

    similarity: Tensor
    value: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Projected:
        """Those of some images of the batch, e.g. of the partners."""
        return Projected(self.similarity[chosen], self.value[chosen])


class MixBlock(nn.Module):
    """Cross-attention between the feature maps of a pair that predicts each pixel's share of image i.

    Args:
        channels: C of the feature maps.
        options: how the block is built; those of the Mix Block are read, and may be given by name instead.
    """

    def __init__(self, channels: int, options: AutoMixOptions | None = None, **overrides: Any) -> None:
        super().__init__()
        self.options = options = dataclasses.replace(options or AutoMixOptions(), **overrides)
        check(options)
        embedded = channels + int(options.lam_embedding)
        # W_P of Eq. 6, shared by query and key
        self.w_p = nn.Conv2d(embedded, max(channels // 2, 1), kernel_size=1)
        self.w_z = nn.Conv2d(embedded, 1, kernel_size=1)  # W_Z of Eq. 5
        for layer, std in ((self.w_p, options.similarity_std), (self.w_z, options.init_std)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if options.lam_embedding and options.lam_slope:
            with torch.no_grad():  # s = σ(slope·(share - 1/2) + ...), for the value's image, whichever it is
                self.w_z.weight[0, -1] = options.lam_slope
                self.w_z.bias.fill_(-options.lam_slope / 2)  # type: ignore[union-attr]

    def forward(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int]) -> Tensor:
        """The mask s_i (N, 1, H, W) in [0, 1], the share of image i in each pixel; s_j = 1 - s_i.

        Args:
            z_i, z_j: (N, C, h, w) feature maps of the two images.
            lam: λ, the share of image i that the mask should have.
            size: (H, W) of the images.
        """
        return self.pair_mask(self.project(z_i), self.project(z_j), lam, size)

    def project(self, z: Tensor) -> Projected:
        """W_P z and W_Z z of feature maps z (N, C, h, w).

        W_P, nearly all of the block's work, runs in autocast's precision where there is one. All that follows
        is in float32, or float64 where z is: the softmax has up to thousands of positions and exponents of
        sqrt(D).
        """
        with full_precision(z.device.type):
            z = self.normalized(at_least_float32(z))
            value = functional.conv2d(z, self.columns(self.w_z)[0])
        return Projected(at_least_float32(functional.conv2d(z, self.columns(self.w_p)[0])), value)

    def pair_mask(self, i: Projected, j: Projected, lam: float, size: tuple[int, int]) -> Tensor:
        """Eq. 5, s_i (N, 1, H, W) from projected features: U(σ(P · W_Z z)); arguments as of `forward`."""
        pair, first_upsampled = self.options.value == "pair", self.options.order == "upsample_sigmoid"
        with full_precision(i.value.device.type):
            value = j.value + self.shift(self.w_z, 1 - lam) if pair else i.value + self.shift(self.w_z, lam)
            logits = self.attention(i, j, lam) @ value.flatten(2).transpose(1, 2)
            logits = logits.transpose(1, 2).unflatten(2, i.value.shape[2:])
            if first_upsampled:
                mask = torch.sigmoid(self.upsample(logits, size))
            else:
                mask = self.upsample(torch.sigmoid(logits), size)
            return 1 - mask if pair else mask  # s_i = 1 - s_j

    def attention(self, i: Projected, j: Projected, lam: float) -> Tensor:
        """Eq. 6: P (N, I, J), every row a distribution over z_j's positions; C(·) = sqrt(D)."""
        query_NDI = (i.similarity + self.shift(self.w_p, lam)).flatten(2)
        key_NDJ = (j.similarity + self.shift(self.w_p, 1 - lam)).flatten(2)
        return torch.softmax(query_NDI.transpose(1, 2) @ key_NDJ / math.sqrt(query_NDI.shape[1]), dim=-1)

    def normalized(self, z: Tensor) -> Tensor:
        """z (N, C, h, w) of spatial mean 0 and root mean square length 1, where the block normalises."""
        if not self.options.normalize:
            return z
        z = z - z.mean(dim=(2, 3), keepdim=True)
        return z / (z.square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True) + 1e-6).sqrt()

    def columns(self, layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
        """The weights of ``layer`` for z^l and for λ in z^l_λ = concat(z^l, λ)."""
        if not self.options.lam_embedding:
            return layer.weight, None
        return layer.weight[:, :-1], layer.weight[:, -1:]

    def shift(self, layer: nn.Conv2d, share: float) -> Tensor:
        """What λ's constant channel and the bias add to each output of ``layer``: (1, outputs, 1, 1)."""
        column, bias = self.columns(layer)[1], layer.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
        return bias if column is None else bias + share * column.view(1, -1, 1, 1)

    def upsample(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """U of Eq. 5: to the image's own H×W, whatever the encoder's stride and padding made of it."""
        mode = self.options.upsampling
        return functional.interpolate(
            grid, size, mode=mode, align_corners=None if mode == "nearest" else False
        )


class RandomGrids(nn.Module):
    """Table 9's first row: a λ-share of the h×w cells, drawn at random, is image i's."""

    def project(self, z: Tensor) -> Tensor:
        """Feature maps (N, C, h, w) as they are: only their size is read."""
        return z

    def pair_mask(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int]) -> Tensor:
        """As `MixBlock.pair_mask`; drawn from torch's global CPU generator, which `AutoMix.mask` seeds."""
        height, width = z_i.shape[2:]
        ranks = torch.rand(len(z_i), height * width).argsort(dim=1, descending=True).argsort(dim=1)
        kept = ranks < round(lam * height * width)
        grid = kept.to(z_i.device, torch.float32, non_blocking=True).view(-1, 1, height, width)
        return functional.interpolate(grid, size=size, mode="nearest")
