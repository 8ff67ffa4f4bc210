"""What a training method is: what it draws, how it mixes, and the calls that the training loop makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from automix_transfer.mixing.checks import check
from automix_transfer.mixing.draw import Draw, Rng, Size
from automix_transfer.mixing.losses import LossOptions, check_batch, label_loss
from automix_transfer.models.encoders import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo


@dataclass(frozen=True)
class Mixed:
    """What mixing a batch by a draw gives.

    Attributes:
        images: (N, C, H, W).
        mask: (N, 1, H, W) share of image i in each pixel.
        lam: share of label i, one number or one for each sample (N,).
        targets: (N, K) soft labels, where more than two images are mixed; ``lam`` says nothing then.
    """

    images: Tensor
    mask: Tensor
    lam: float | Tensor = 1.0
    targets: Tensor | None = None


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

    A method first draws, then mixes: a function of images, labels and draw, and of what it asks of its
    networks. So a draw can be replayed and looked at. The training loop makes the calls below and no others,
    so a new method is one new file and one line in `automix_transfer.mixing.table`.

    Attributes:
        options_class: the dataclass of its options.
        reads_layers: it changes or reads features by hooks, which a compiled network passes over.
        uneven_passes: options by which ranks may run different numbers of forward passes (SyncBatchNorm would
            hang), with the values at which they do not.
    """

    options_class: ClassVar[type] = LossOptions
    reads_layers: bool = False
    uneven_passes: Mapping[str, float] = MappingProxyType({})

    def prepare(self, info: EncoderInfo) -> None:
        """Called once, when a run is configured: what the images will be (side, mean, std). Raises
        `UserError` where they do not fit."""

    def view_transforms(self) -> Sequence[Callable[[Any], Any]]:
        """How the data set makes each view that the method wants beside the image itself: a cropped PIL image
        to an image or (H, W, 3) values from 0 to 255. They lie beside each other in the channels, (N,
        3·views, H, W), and are drawn from the global generators, which the data set seeds for each view."""
        return ()

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> Any:
        """Everything random of one step, for ``count`` images of ``size`` (H, W), from a CPU generator;
        ``lam`` replaces the λ that would be drawn."""
        raise NotImplementedError

    def mix(self, images: Tensor, labels: Tensor, draw: Any) -> Mixed:
        """Images (N, C, H, W) and labels (N,) or (N, K), mixed as ``draw`` says."""
        raise NotImplementedError

    def forward(self, images: Tensor, labels: Tensor, rng: Rng = None) -> StepOutput:
        """One step's loss on images (N, C, H, W) and labels: check, draw, step. A draw may say that this
        batch is not mixed.

        Labels are integers (N,) or, with ``options.loss`` bce, vectors (N, K), see `mixing.losses`.
        """
        check_batch(images, labels, vectors=getattr(getattr(self, "options", None), "loss", "") == "bce")
        draw = self.draw(len(images), images.shape[2:], rng)
        return self.step(images, labels, draw) if draw.apply else self.clean_step(images, labels)

    def step(self, images: Tensor, labels: Tensor, draw: Any) -> StepOutput:
        """The loss on images that are mixed as ``draw`` says."""
        raise NotImplementedError

    def clean_step(self, images: Tensor, labels: Tensor) -> StepOutput:
        """The loss on the images as they are."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step; ``progress`` in [0, 1] is the share of the training done.

        Moving averages and schedules live here.
        """

    def weigh_classes(self, weights: Tensor) -> None:
        """From now on a label of class y counts ``weights[y]`` times in every cross-entropy; ``weights`` (K,)
        lie on the method's device."""
        self.options.weights = weights  # type: ignore[union-attr]

    def inference_encoder(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return next(iter(self.encoders().values()))

    def encoders(self) -> dict[str, nn.Module]:
        """Every network worth evaluating, by short name, the one for inference first. AutoMix: ``{"k": ...,
        "q": ...}``."""
        raise NotImplementedError

    def parameter_groups(self) -> Iterable[dict]:
        """Optimizer groups: dicts of ``params`` (list of (name, parameter)), ``lr_scale`` (times the run's
        rate), ``lr_end`` (the rate at the end as a share of the group's peak; None: as the run's schedule),
        ``weight_decay`` and SGD's ``momentum`` (None: the run's)."""
        yield {
            "params": [(n, p) for n, p in self.named_parameters() if p.requires_grad],
            "lr_scale": 1.0,
            "weight_decay": None,
        }


class SingleEncoderMethod(Method):
    """A method that trains one encoder. Draws nothing and mixes nothing, until a subclass does.

    Args:
        encoder: images (N, 3, H, W) to logits (N, K).
        options: of the method's ``options_class``; None: its defaults.

    Raises:
        UserError: an option with a value that it may not have.
    """

    options: Any

    def __init__(self, encoder: nn.Module, options: Any = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = self.options_class() if options is None else options
        check(self.options)
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD

    def prepare(self, info: EncoderInfo) -> None:
        self.mean, self.std = info.mean, info.std
        self.check_size((info.image_size, info.image_size))

    def check_size(self, size: Size) -> None:
        """Refuse images of ``size`` (H, W) that the method cannot mix."""

    def encoders(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> Any:
        return Draw(apply=False)

    def mix(self, images: Tensor, labels: Tensor, draw: Any) -> Mixed:
        return Mixed(images, images.new_ones(len(images), 1, *images.shape[2:]))

    def plain(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) in [0, 1] again, as float32; those with other channels
        than the run's as they are."""
        if images.shape[1] != len(self.mean):
            return images.float()
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.float() * std + mean

    def clean_step(self, images: Tensor, labels: Tensor) -> StepOutput:
        """Eq. 1 on the images as they are."""
        loss = label_loss(self.encoder(images), labels, self.options)
        return StepOutput(loss, {"loss_ce": loss.detach()})
