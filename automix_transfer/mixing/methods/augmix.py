"""AugMix (Hendrycks et al., 2020): no pairs; an image and two views of it should be classified alike.

Views are made where images are read (`AugMixView`), beside each other in the channels: (N, 9, H, W). Costs 9
passes, three times vanilla's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.checks import check_range
from automix_transfer.mixing.losses import LossOptions, check_loss, label_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.mixing.methods.vanilla import SingleEncoderMethod
from automix_transfer.mixing.parts.augmix_view import AugMixView

VIEWS = 3


@dataclass
class AugMixOptions(LossOptions):
    """Options of `AugMix`, besides those of the loss on the clean images.

    Attributes:
        severity, width, depth, alpha: see `AugMixView`; severity 3 on CIFAR, 1 on ImageNet.
        jsd_weight: of the Jensen-Shannon term; 0 trains on the clean images alone.
    """

    alpha: float = 1.0
    severity: float = 3.0
    width: int = 3
    depth: int = 0
    jsd_weight: float = 12.0


def jensen_shannon(logits: list[Tensor]) -> Tensor:
    """mean over views and samples of KL(p_k ‖ M), M the mean of the views' distributions, clamped to [1e-7,
    1]; at most log(views)."""
    with torch.autocast(logits[0].device.type, enabled=False):
        shares = [functional.softmax(view.float(), dim=1) for view in logits]
        log_mean = torch.stack(shares).mean(dim=0).clamp(1e-7, 1).log()
        return torch.stack([functional.kl_div(log_mean, p, reduction="batchmean") for p in shares]).mean()


class AugMix(SingleEncoderMethod):
    """CE on the clean image + 12 · the Jensen-Shannon divergence of clean image and two views. All views go
    through in one pass."""

    views = VIEWS

    def __init__(self, encoder: nn.Module, options: AugMixOptions | None = None) -> None:
        super().__init__(encoder)
        self.options = options = options or AugMixOptions()
        check_alpha(options.alpha)
        check_loss(options)
        check_range("severity", options.severity, 0.1, 10)
        check_range("width", options.width, 1, 100)
        check_range("depth", options.depth, 0, 100)
        check_range("jsd_weight", options.jsd_weight)
        if options.loss != "ce":
            raise UserError(
                f"method.loss={options.loss} does not go with augmix, whose divergence compares "
                "distributions over the "
                "classes; use method.loss=ce, or method.name=mixup_cutmix for a binary cross-entropy"
            )

    def view_transform(self) -> Callable[[Any], Any]:
        options = self.options
        return AugMixView(options.severity, options.width, options.depth, options.alpha)

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        if images.ndim != 4 or images.shape[1] % VIEWS or images.shape[1] == 3:
            raise UserError(
                f"augmix needs {VIEWS} views of each image beside each other in the channels, (N, 9, H, W), "
                f"but got {tuple(images.shape)}; give the data set the method's view_transform()"
            )
        clean, *others = self.encoder(torch.cat(images.chunk(VIEWS, dim=1))).chunk(VIEWS)
        ce, jsd = label_loss(clean, labels, self.options), jensen_shannon([clean, *others])
        return StepOutput(
            ce + self.options.jsd_weight * jsd, {"loss_ce": ce.detach(), "loss_jsd": jsd.detach()}
        )
