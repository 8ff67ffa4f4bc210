"""Training without mixing: the baseline of every table."""

from __future__ import annotations

from torch import Tensor

from automix_transfer.mixing.base import SingleEncoderMethod, StepOutput
from automix_transfer.mixing.draw import Rng


class Vanilla(SingleEncoderMethod):
    """Eq. 1 on the images as they are."""

    def forward(self, images: Tensor, labels: Tensor, rng: Rng = None) -> StepOutput:
        return self.clean_step(images, labels)
