"""Training without mixing: the baseline of every table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from automix_transfer.mixing.base import SingleEncoderMethod, StepOutput
from automix_transfer.mixing.losses import LossOptions


@dataclass
class VanillaOptions(LossOptions):
    """Vanilla has no options besides those of the loss."""


class Vanilla(SingleEncoderMethod):
    """Eq. 1 on the images as they are."""

    options_class = VanillaOptions

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        return self.clean_step(images, labels)
