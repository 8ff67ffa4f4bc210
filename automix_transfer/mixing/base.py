"""What a training method is: the four calls that the training loop makes, and what one step returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.models.encoders import EncoderInfo


@dataclass
class StepOutput:
    """What a method returns for one batch.

    Attributes:
        loss: scalar, to be minimized.
        metrics: scalars for the log, detached, e.g. ``{"loss_ce": ..., "lam": ...}``.
        mixed: (N, C, H, W) mixed images the classifier saw, in the input's normalisation; None where nothing
            was mixed.
        mask: (N, 1, H, W) share of image i in each pixel of ``mixed``; None where the method has none.
        permutation: (N,) index of each image's partner j; None where nothing was mixed.
        lam: λ, the share of image i's label; where it differs from sample to sample, the λ that was drawn.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    mixed: Tensor | None = None
    mask: Tensor | None = None
    permutation: Tensor | None = None
    lam: float | None = None


class Method(nn.Module):
    """A way to train an encoder on labelled images: vanilla, a mixup, or AutoMix.

    The training loop calls the methods below and nothing else, so a new method is one new file.

    Attributes:
        views: views of each image that a batch must hold, beside each other in the channels: (N, 3·views, H,
            W).
        reads_layers: the method changes or reads features on their way through the encoder, by hooks that a
            compiled network passes over.
        uneven_passes: the option, as ``key=value``, by which processes may take different numbers of passes
            in a step; empty if none.
        soft_labels: labels may also be distributions (N, K), as a data set that was mixed offline gives them.
    """

    views: int = 1
    reads_layers: bool = False
    uneven_passes: str = ""
    soft_labels: bool = False

    def prepare(self, info: EncoderInfo) -> None:
        """Called once, when a run is configured: what the images will be (side, mean, std). Raises
        `UserError` where they do not fit."""

    def view_transform(self) -> Callable[[Any], Any] | None:
        """How the data set makes the views after the first: a cropped PIL image to an image or (H, W, 3)
        values from 0 to 255. Drawn from the global generators, which the data set seeds for each view."""
        return None

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        """One step's loss on images (N, C, H, W) and integer labels (N,). ``rng`` is a CPU generator for
        every draw of the step."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step; ``progress`` in [0, 1] is the share of the training done.

        Moving averages and schedules live here.
        """

    def inference_encoder(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return next(iter(self.encoders().values()))

    def encoders(self) -> dict[str, nn.Module]:
        """Every network worth evaluating, by short name, the one for inference first. AutoMix: ``{"k": ...,
        "q": ...}``."""
        raise NotImplementedError

    def parameter_groups(self) -> Iterable[dict]:
        """Optimizer groups: dicts of ``params`` (list of (name, parameter)), ``lr_scale`` (times the run's
        rate), ``lr_end`` (the rate at the end as a share of the group's peak; None: as the run's schedule)
        and ``weight_decay`` (None: the run's)."""
        yield {
            "params": [(n, p) for n, p in self.named_parameters() if p.requires_grad],
            "lr_scale": 1.0,
            "weight_decay": None,
        }
