"""The Mix Block M_φ: from two feature maps and λ to a mask (Eqs. 4-6), and the ablation without it (random grids, Table 9).

Shape suffixes: N pairs, C channels, D = C // 2 embedding channels, I and J the h·w positions of the two maps, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError

VALUES = ("pair", "own")
ORDERS = ("sigmoid_upsample", "upsample_sigmoid")


class MixBlock(nn.Module):
    """Cross-attention between the feature maps of a pair that predicts each pixel's share of image i.

    Args:
        channels: C of the feature maps.
        lam_embedding: concatenate λ to z_i and 1-λ to z_j as a constant channel (section 3.1; off in Table 9's second row).
        value: ``pair``: the value is W_Z z_j and s_i = 1 - s_j (the end of section 3.1, and the code that made the paper's numbers);
            ``own``: the value is W_Z z_i as Eq. 5 is printed, which pairs the weight of position q of j with the value at position q of i.
        order: ``sigmoid_upsample`` is Eq. 5's U(σ(·)); ``upsample_sigmoid`` the published code's σ(U(·)). Equal for nearest upsampling.
        upsampling: ``nearest`` or ``bilinear``.
        init_std: standard deviation of W_Z's initial weights for the features. Near zero the first masks are nearly flat.
        similarity_std: the same for W_P. Near zero (the published code: 0.01) every row of P is uniform, so that every mask is flat
            whatever the values are, and the gradient that could change it vanishes with W_P: a saddle at the trivial solution of
            Fig. 6. A random projection of standard deviation 1 compares contents from the first step.
        lam_slope: initial weight of W_Z for λ, its bias balancing it at λ = 0.5: with 4 the first masks have a mean of 0.12 to 0.88 for
            λ from 0 to 1; with 0 (the published code) all have 0.5, and until that is unlearnt labels do not match the images.
        normalize: subtract each feature map's spatial mean and scale its vectors to a length of 1 on average (root mean square) before
            λ is appended. The mask's mean is then left to λ and the bias, its shape to the features, and neither depends on how large
            the encoder's features are; without it one rate cannot fit both, and masks saturate at 0 or 1.
    """

    def __init__(self, channels: int, *, lam_embedding: bool = True, value: str = "pair", order: str = "sigmoid_upsample",
                 upsampling: str = "nearest", init_std: float = 0.01, similarity_std: float = 1.0, lam_slope: float = 4.0,
                 normalize: bool = True) -> None:
        super().__init__()
        if value not in VALUES:
            raise UserError(f"Mix Block value '{value}' is unknown; choose one of {', '.join(VALUES)}")
        if order not in ORDERS:
            raise UserError(f"Mix Block order '{order}' is unknown; choose one of {', '.join(ORDERS)}")
        self.lam_embedding, self.value, self.order, self.upsampling, self.normalize = lam_embedding, value, order, upsampling, normalize
        embedded = channels + int(lam_embedding)
        self.w_p = nn.Conv2d(embedded, max(channels // 2, 1), kernel_size=1)  # W_P of Eq. 6, shared by query and key
        self.w_z = nn.Conv2d(embedded, 1, kernel_size=1)  # W_Z of Eq. 5
        for layer, std in ((self.w_p, similarity_std), (self.w_z, init_std)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if lam_embedding and lam_slope:
            with torch.no_grad():  # s = σ(slope·(share - 1/2) + ...), for the value's image, whichever it is
                self.w_z.weight[0, -1] = lam_slope
                self.w_z.bias.fill_(-lam_slope / 2)  # type: ignore[union-attr]

    def forward(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int]) -> Tensor:
        """The mask s_i (N, 1, H, W) in [0, 1], the share of image i in each pixel; s_j = 1 - s_i.

        Args:
            z_i, z_j: (N, C, h, w) feature maps of the two images.
            lam: λ, the share of image i that the mask should have.
            size: (H, W) of the images.
        """
        # The softmax over up to thousands of positions needs float32; under autocast the rest of the network does not.
        with torch.autocast(z_i.device.type, enabled=False):
            z_i, z_j = self.embed(z_i.float(), lam), self.embed(z_j.float(), 1 - lam)
            attention_NIJ = self.similarity(z_i, z_j)
            value_NJ1 = self.w_z(z_j if self.value == "pair" else z_i).flatten(2).transpose(1, 2)
            logits = (attention_NIJ @ value_NJ1).transpose(1, 2).unflatten(2, z_i.shape[2:])
            if self.order == "sigmoid_upsample":
                mask = self.upsample(torch.sigmoid(logits), size)
            else:
                mask = torch.sigmoid(self.upsample(logits, size))
            return 1 - mask if self.value == "pair" else mask  # s_i = 1 - s_j

    def embed(self, z: Tensor, share: float) -> Tensor:
        """z^l_λ = concat(z^l, λ): (N, C + 1, h, w)."""
        if self.normalize:
            z = z - z.mean(dim=(2, 3), keepdim=True)
            z = z / (z.square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True) + 1e-6).sqrt()
        if not self.lam_embedding:
            return z
        return torch.cat([z, z.new_full((z.shape[0], 1, *z.shape[2:]), share)], dim=1)

    def similarity(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Eq. 6: P (N, I, J), every row a distribution over z_j's positions; C(·) = sqrt(D)."""
        query_NDI, key_NDJ = self.w_p(z_i).flatten(2), self.w_p(z_j).flatten(2)
        return torch.softmax(query_NDI.transpose(1, 2) @ key_NDJ / math.sqrt(query_NDI.shape[1]), dim=-1)

    def upsample(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """U of Eq. 5: to the image's own H×W, whatever the encoder's stride and padding made of it."""
        return functional.interpolate(grid, size=size, mode=self.upsampling, align_corners=None if self.upsampling == "nearest" else False)


class RandomGrids(nn.Module):
    """Table 9's first row: no Mix Block, masks of random cells. The λ-share of the h×w cells belongs to image i, whatever is in them."""

    def forward(self, z_i: Tensor, z_j: Tensor, lam: float, size: tuple[int, int], scores: Tensor) -> Tensor:
        """As `MixBlock.forward`; ``scores`` (N, h·w) are random numbers whose λ·h·w largest choose the cells of image i."""
        height, width = z_i.shape[2:]
        kept = round(lam * height * width)
        ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)
        grid = (ranks < kept).to(z_i.device, torch.float32).view(-1, 1, height, width)
        return functional.interpolate(grid, size=size, mode="nearest")


def mix(images_i: Tensor, images_j: Tensor, mask: Tensor) -> Tensor:
    """Eq. 4: h_φ = s_i ⊙ x_i + (1 - s_i) ⊙ x_j, for images (N, C, H, W) and s_i (N, 1, H, W)."""
    mask = mask.to(images_i.dtype)
    return mask * images_i + (1 - mask) * images_j
