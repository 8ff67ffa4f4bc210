"""AugMix (Hendrycks et al., 2020): no pairs; an image and two views of it should be classified alike.

Views are made where images are read (`AugMixView`), beside each other in the channels: (N, 9, H, W). Costs 9
passes, three times vanilla's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Mixed, SingleEncoderMethod, StepOutput
from automix_transfer.mixing.checks import between, checked, positive
from automix_transfer.mixing.draw import Draw, Rng, Size
from automix_transfer.mixing.losses import LossOptions, label_loss
from automix_transfer.mixing.parts.augmix_view import AugMixView
from automix_transfer.mixing.precision import full_precision

VIEWS = 3


@dataclass
class AugMixOptions(LossOptions):
    """Options of `AugMix`, besides those of the loss on the clean images.

    Attributes:
        severity, width, depth, alpha: see `AugMixView`; severity 3 on CIFAR, 1 on ImageNet.
        jsd_weight: of the Jensen-Shannon term; 0 trains on the clean images alone.
    """

    alpha: float = positive(1.0)
    severity: float = between(3.0, 0.1, 10)
    width: int = between(3, 1, 100)
    depth: int = between(0, 0, 100)
    jsd_weight: float = between(12.0)
    loss: str = checked("ce", lambda loss: "" if loss == "ce" else f"{loss} {ONLY_CE}")


ONLY_CE = (
    "does not go with augmix, whose divergence compares distributions over the classes; use method.loss=ce, "
    "or method.name=mixup_cutmix for a binary cross-entropy"
)


@dataclass(frozen=True)
class AugMixDraw(Draw):
    """A seed for the view of each image."""

    seeds: list[int]


def jensen_shannon(logits: list[Tensor]) -> Tensor:
    """mean over views and samples of KL(p_k ‖ M), M the mean of the views' distributions, clamped to [1e-7,
    1]; at most log(views)."""
    with full_precision(logits[0].device.type):
        shares = [functional.softmax(view.float(), dim=1) for view in logits]
        log_mean = torch.stack(shares).mean(dim=0).clamp(1e-7, 1).log()
        return torch.stack([functional.kl_div(log_mean, p, reduction="batchmean") for p in shares]).mean()


class AugMix(SingleEncoderMethod):
    """CE on the clean image + 12 · the Jensen-Shannon divergence of clean image and two views. All views go
    through in one pass.

    It mixes no pairs, and in training its views are drawn where images are read; `draw` and `mix` give one
    view of each image, to look at.
    """

    options_class = AugMixOptions

    def view_transforms(self) -> Sequence[Callable[[Any], Any]]:
        options = self.options
        view = AugMixView(options.severity, options.width, options.depth, options.alpha)
        return [view] * (VIEWS - 1)

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> AugMixDraw:
        return AugMixDraw(torch.randint(2**31, (count,), generator=rng).tolist())

    def mix(self, images: Tensor, labels: Tensor, draw: AugMixDraw) -> Mixed:
        pixels = (self.plain(images.cpu()).clamp(0, 1) * 255).round().to(torch.uint8)
        view, before, views = self.view_transforms()[0], np.random.get_state(), []
        for seed, one in zip(draw.seeds, pixels.permute(0, 2, 3, 1).numpy(), strict=True):
            np.random.seed(seed)
            views.append(torch.from_numpy(view(Image.fromarray(one))).permute(2, 0, 1) / 255)
        np.random.set_state(before)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        mixed = ((torch.stack(views) - mean) / std).to(images.device, images.dtype)
        return Mixed(mixed, images.new_ones(len(images), 1, *images.shape[2:]))

    def forward(self, images: Tensor, labels: Tensor, rng: Rng = None) -> StepOutput:
        if images.ndim != 4 or images.shape[1] % VIEWS or images.shape[1] == 3:
            raise UserError(
                f"augmix needs {VIEWS} views of each image beside each other in the channels, (N, 9, H, W), "
                f"but got {tuple(images.shape)}; give the data set the method's view_transforms()"
            )
        clean, *others = self.encoder(torch.cat(images.chunk(VIEWS, dim=1))).chunk(VIEWS)
        ce, jsd = label_loss(clean, labels, self.options), jensen_shannon([clean, *others])
        return StepOutput(
            ce + self.options.jsd_weight * jsd, {"loss_ce": ce.detach(), "loss_jsd": jsd.detach()}
        )
