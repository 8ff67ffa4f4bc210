"""Attentive CutMix (Walawalkar et al., 2020): the cells of image i that a trained network looks at most,
pasted onto its partner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between, one_of
from automix_transfer.mixing.draw import PairDraw, Size
from automix_transfer.mixing.pairs import PairMethod, PairOptions, partners_of, paste
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models.encoders import EncoderInfo, feature_layer


@dataclass
class AttentiveMixOptions(PairOptions):
    """Options of `AttentiveMix`.

    Attributes:
        teacher_weights: file of the trained network; ``teacher``: its name where the file does not say it
            (the paper: resnet50).
        teacher_layer: its last feature map: a submodule's name, or 1 to 4 for its stages.
        teacher_size: side of the images it sees, in pixels; at 224 a ResNet has 7×7 cells.
        cells: cells of image i that are pasted (6 of 49 in the method's paper); 0: int(λ·cells of the map),
            at least 1, with λ ~ Beta(α, α), which is the form that the tables compare with ("AttentiveMix+").
        attention: ``mean`` over the channels, in eval mode; ``released``: the last channel only, BatchNorm in
            train mode, as in its code.
    """

    teacher_weights: str = ""
    teacher: str = ""
    teacher_layer: str = "4"
    teacher_size: int = between(224, 1, 4096)
    cells: int = between(6)
    attention: str = one_of("mean", "mean", "released")


def attentive_mask(attention: Tensor, cells: int, size: Size) -> Tensor:
    """A mask (N, 1, H, W) that is 1 in the ``cells`` highest cells of each attention map (N, h, w); NaN
    counts as the lowest."""
    flat = attention.flatten(1).nan_to_num(nan=-torch.inf)
    chosen = flat.topk(cells, dim=1).indices
    grid = torch.zeros_like(flat).scatter_(1, chosen, 1.0).view(-1, 1, *attention.shape[1:])
    return functional.interpolate(grid, size=size, mode="nearest")


class AttentiveMix(PairMethod):
    """Eq. 2 on images with the attended cells of another one; the label's share of i is what the cells cover
    (6/49 where they divide the image). Costs one forward pass of the teacher.

    Args:
        teacher: the trained network; None: that of ``options.teacher_weights``.
    """

    options_class = AttentiveMixOptions

    def __init__(
        self, encoder: nn.Module, options: AttentiveMixOptions | None = None, teacher: Teacher | None = None
    ) -> None:
        super().__init__(encoder, options)
        options = self.options
        self.teacher = teacher or Teacher.load(
            options.teacher_weights, options.teacher, "attentivemix", "saliencymix or puzzlemix"
        )
        self.layer = feature_layer(self.teacher.network, options.teacher_layer)
        self.info: EncoderInfo | None = None
        weights = next(self.teacher.network.parameters())
        blank = torch.zeros(1, 3, options.teacher_size, options.teacher_size, device=weights.device)
        grid = self.teacher.feature_maps(blank, self.layer).shape[2:]
        if options.cells > grid[0] * grid[1]:
            raise UserError(
                f"method.cells is {options.cells}, but layer '{self.layer}' of the teacher has only "
                f"{grid[0]}x{grid[1]} cells at {options.teacher_size} pixels; lower it or raise "
                "method.teacher_size"
            )

    def prepare(self, info: EncoderInfo) -> None:
        super().prepare(info)
        self.info = info

    def attention(self, images: Tensor) -> Tensor:
        """What the teacher looks at in images (N, 3, H, W): (N, h, w)."""
        seen = self.teacher.inputs(images, self.info, self.options.teacher_size)
        released = self.options.attention == "released"
        maps = self.teacher.feature_maps(seen, self.layer, train_mode=released)
        return maps[:, -1] if released else maps.mean(dim=1)

    def mix(self, images: Tensor, labels: Tensor, draw: PairDraw) -> Mixed:
        return self.mix_attended(images, draw, self.attention(images))

    def mix_attended(self, images: Tensor, draw: PairDraw, attention: Tensor) -> Mixed:
        """The cells of image i with the highest ``attention`` (N, h, w) on its partner."""
        total = attention.shape[1] * attention.shape[2]
        cells = self.options.cells or max(int(total * draw.lam), 1)
        mask = attentive_mask(attention, min(cells, total), images.shape[2:])
        pasted = paste(images, partners_of(images, draw), mask)
        return Mixed(pasted, mask.to(images.dtype), mask.mean(dim=(1, 2, 3)))
