"""Training without mixing: the baseline of every table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.losses import LossOptions, check_loss, label_loss


@dataclass
class VanillaOptions(LossOptions):
    """Vanilla has no options besides those of the loss."""


class SingleEncoderMethod(Method):
    """A method that trains one encoder and nothing else."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def encoders(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}


class Vanilla(SingleEncoderMethod):
    """Eq. 1 on the images as they are."""

    def __init__(self, encoder: nn.Module, options: VanillaOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options or VanillaOptions()
        check_loss(self.options)

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        loss = label_loss(self.encoder(images), labels, self.options)
        return StepOutput(loss, {"loss_ce": loss.detach()})
