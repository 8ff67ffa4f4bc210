"""The Mix Block M_φ: from two feature maps and λ to a mask (Eqs. 4-6), and the ablation without it (random
grids, Table 9).

Shape suffixes: N pairs, C channels, D = C // 2 embedding channels, I and J the h·w positions of the two maps,
H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.precision import full_precision

if TYPE_CHECKING:
    from automix_transfer.mixing.automix.options import AutoMixOptions

VALUES = ("pair", "own")
ORDERS = ("sigmoid_upsample", "upsample_sigmoid")


@dataclass(frozen=True)
class Projected:
    """Feature maps as the Mix Block reads them, before λ is known: W_P z (N, D, h, w) and W_Z z (N, 1, h, w),
    float32.

    λ's column and the bias of either only shift them, so one projection of a batch serves both images of all
    its pairs, for every λ.
    """

    similarity: Tensor
    value: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Projected:
        """Those of some images of the batch, e.g. of the partners."""
        return Projected(self.similarity[chosen], self.value[chosen])

    def detach(self) -> Projected:
        """Without a gradient."""
        return Projected(self.similarity.detach(), self.value.detach())


class MixBlock(nn.Module):
    """Cross-attention between the feature maps of a pair that predicts each pixel's share of image i.

    Args:
        channels: C of the feature maps.
        lam_embedding: concatenate λ to z_i and 1-λ to z_j as a constant channel (section 3.1; off in Table
            9's second row).
        value: ``pair``: the value is W_Z z_j and s_i = 1 - s_j (the end of section 3.1, and the code that
            made the paper's numbers); ``own``: the value is W_Z z_i as Eq. 5 is printed, which pairs the
            weight of position q of j with the value at position q of i.
        order: ``sigmoid_upsample`` is Eq. 5's U(σ(·)); ``upsample_sigmoid`` the published code's σ(U(·)).
            Equal for nearest upsampling.
        upsampling: ``nearest`` or ``bilinear``.
        init_std: standard deviation of W_Z's initial weights for the features. Near zero the first masks are
            nearly flat.
        similarity_std: the same for W_P. Near zero (the published code: 0.01) every row of P is uniform, so
            that every mask is flat
            whatever the values are, and the gradient that could change it vanishes with W_P: a saddle at the
                trivial solution of
            Fig. 6. A random projection of standard deviation 1 compares contents from the first step.
        lam_slope: initial weight of W_Z for λ, its bias balancing it at λ = 0.5: with 4 the first masks have
            a mean of 0.12 to 0.88 for λ from 0 to 1; with 0 (the published code) all have 0.5, and until that
            is unlearnt labels do not match the images.
        normalize: subtract each feature map's spatial mean and scale its vectors to a length of 1 on average
            (root mean square) before λ is appended. The mask's mean is then left to λ and the bias, its shape
            to the features, and neither depends on how large the encoder's features are; without it one rate
            cannot fit both, and masks saturate at 0 or 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        lam_embedding: bool = True,
        value: str = "pair",
        order: str = "sigmoid_upsample",
        upsampling: str = "nearest",
        init_std: float = 0.01,
        similarity_std: float = 1.0,
        lam_slope: float = 4.0,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if value not in VALUES:
            raise UserError(f"Mix Block value '{value}' is unknown; choose one of {', '.join(VALUES)}")
        if order not in ORDERS:
            raise UserError(f"Mix Block order '{order}' is unknown; choose one of {', '.join(ORDERS)}")
        self.lam_embedding, self.value, self.order, self.upsampling, self.normalize = (
            lam_embedding,
            value,
            order,
            upsampling,
            normalize,
        )
        embedded = channels + int(lam_embedding)
        # W_P of Eq. 6, shared by query and key
        self.w_p = nn.Conv2d(embedded, max(channels // 2, 1), kernel_size=1)
        self.w_z = nn.Conv2d(embedded, 1, kernel_size=1)  # W_Z of Eq. 5
        for layer, std in ((self.w_p, similarity_std), (self.w_z, init_std)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if lam_embedding and lam_slope:
            with torch.no_grad():  # s = σ(slope·(share - 1/2) + ...), for the value's image, whichever it is
                self.w_z.weight[0, -1] = lam_slope
                self.w_z.bias.fill_(-lam_slope / 2)  # type: ignore[union-attr]

    @classmethod
    def of(cls, channels: int, options: AutoMixOptions) -> MixBlock:
        """The one that AutoMix's ``options`` describe."""
        return cls(
            channels,
            lam_embedding=options.lam_embedding,
            value=options.value,
            order=options.order,
            upsampling=options.upsampling,
            init_std=options.init_std,
            similarity_std=options.similarity_std,
            lam_slope=options.lam_slope,
            normalize=options.normalize,
        )

    def forward(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int]) -> Tensor:
        """The mask s_i (N, 1, H, W) in [0, 1], the share of image i in each pixel; s_j = 1 - s_i.

        Args:
            z_i, z_j: (N, C, h, w) feature maps of the two images.
            lam: λ, the share of image i that the mask should have.
            size: (H, W) of the images.
        """
        return self.pair_mask(self.project(z_i), self.project(z_j), lam, size)

    def project(self, z: Tensor) -> Projected:
        """What the masks of all pairs and of every λ share, from feature maps (N, C, h, w).

        W_P, nearly all of the block's work, runs in autocast's precision where there is one; all that follows
        needs float32: a softmax over up to thousands of positions whose exponents reach sqrt(D), and a λ of
            more than three digits.
        """
        with full_precision(z.device.type):
            z = self.normalized(z.float())
            value = functional.conv2d(z, self.columns(self.w_z)[0])
        return Projected(functional.conv2d(z, self.columns(self.w_p)[0]).float(), value)

    def pair_mask(self, i: Projected, j: Projected, lam: float, size: tuple[int, int]) -> Tensor:
        """As `forward`, from projected features."""
        with full_precision(i.value.device.type):
            attention_NIJ = self.attention(i, j, lam)
            value = (
                j.value + self.shift(self.w_z, 1 - lam)
                if self.value == "pair"
                else i.value + self.shift(self.w_z, lam)
            )
            logits = (
                (attention_NIJ @ value.flatten(2).transpose(1, 2))
                .transpose(1, 2)
                .unflatten(2, i.value.shape[2:])
            )
            if self.order == "sigmoid_upsample":
                mask = self.upsample(torch.sigmoid(logits), size)
            else:
                mask = torch.sigmoid(self.upsample(logits, size))
            return 1 - mask if self.value == "pair" else mask  # s_i = 1 - s_j

    def attention(self, i: Projected, j: Projected, lam: float) -> Tensor:
        """Eq. 6: P (N, I, J), every row a distribution over z_j's positions; C(·) = sqrt(D)."""
        query_NDI = (i.similarity + self.shift(self.w_p, lam)).flatten(2)
        key_NDJ = (j.similarity + self.shift(self.w_p, 1 - lam)).flatten(2)
        return torch.softmax(query_NDI.transpose(1, 2) @ key_NDJ / math.sqrt(query_NDI.shape[1]), dim=-1)

    def normalized(self, z: Tensor) -> Tensor:
        """z (N, C, h, w) of spatial mean 0 and root mean square length 1, where the block normalises."""
        if not self.normalize:
            return z
        z = z - z.mean(dim=(2, 3), keepdim=True)
        return z / (z.square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True) + 1e-6).sqrt()

    def columns(self, layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
        """The weights of ``layer`` for z^l and for λ in z^l_λ = concat(z^l, λ)."""
        if not self.lam_embedding:
            return layer.weight, None
        return layer.weight[:, :-1], layer.weight[:, -1:]

    def shift(self, layer: nn.Conv2d, share: float) -> Tensor:
        """What λ's constant channel and the bias add to each output of ``layer``: (1, outputs, 1, 1)."""
        column, bias = self.columns(layer)[1], layer.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
        return bias if column is None else bias + share * column.view(1, -1, 1, 1)

    def upsample(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """U of Eq. 5: to the image's own H×W, whatever the encoder's stride and padding made of it."""
        return functional.interpolate(
            grid,
            size=size,
            mode=self.upsampling,
            align_corners=None if self.upsampling == "nearest" else False,
        )


class RandomGrids(nn.Module):
    """Table 9's first row: no Mix Block, masks of random cells. The λ-share of the h×w cells belongs to image
    i, whatever is in them."""

    def forward(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int], scores: Tensor) -> Tensor:
        """As `MixBlock.forward`; ``scores`` (N, h·w) are random numbers whose λ·h·w largest choose the cells
        of image i."""
        height, width = z_i.shape[2:]
        kept = round(lam * height * width)
        ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)
        grid = (ranks < kept).to(z_i.device, torch.float32, non_blocking=True).view(-1, 1, height, width)
        return functional.interpolate(grid, size=size, mode="nearest")


def mix(images_i: Tensor, images_j: Tensor, mask: Tensor) -> Tensor:
    """Eq. 4: h_φ = s_i ⊙ x_i + (1 - s_i) ⊙ x_j, for images (N, C, H, W) and s_i (N, 1, H, W)."""
    # one pass over the images, and no copies of them
    return torch.lerp(images_j, images_i, mask.to(images_i.dtype))
