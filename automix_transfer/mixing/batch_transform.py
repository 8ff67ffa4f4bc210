"""A mixup for anybody's loop: images and labels in, mixed images and soft targets out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import get_worker_info

from automix_transfer.errors import UserError, first_line
from automix_transfer.mixing.base import Method
from automix_transfer.mixing.draw import PairDraw, Rng
from automix_transfer.mixing.losses import check_batch, mixed_targets
from automix_transfer.mixing.pairs import partners_of
from automix_transfer.mixing.parts.saliency import SalientMethod
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.mixing.table import Entry
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.eval_mode import eval_mode

#: Options of methods that a transform has no use for, and why.
ELSEWHERE = {
    **dict.fromkeys(("loss", "bce_threshold", "clean_weight"), "the loss is computed in your loop"),
    **dict.fromkeys(("teacher", "teacher_weights"), "give the trained network itself as encoder="),
}


class BatchTransform:
    """What `automix_transfer.mixing.transform` returns: ``images, targets = mix(images, labels)``.

    Attributes:
        mixup_enabled: False leaves images as they are and only makes targets of the labels; timm's loop sets
            it at its ``--mixup-off-epoch``.
    """

    def __init__(self, name: str, method: Method, network: nn.Module, num_classes: int, rng: Rng) -> None:
        self.name, self.method, self.network = name, method, network
        self.num_classes, self.generator = num_classes, rng
        self.mixup_enabled = True
        self._outputs_checked = not isinstance(method, SalientMethod)

    def __repr__(self) -> str:
        return f"transform('{self.name}', {self.num_classes})"

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: (N, C, H, W) floats, normalised; they are not changed.
            labels: (N,) integers, or vectors (N, K) in [0, 1]: soft labels, or several classes of an image.

        Returns:
            Images (N, C, H, W), and targets (N, K) in float32 whose cross-entropy is the method's own loss
            (Eq. 2), up to rounding.

        Raises:
            UserError: labels, sizes or devices that the method cannot mix.
        """
        vectors = self.vectors(images, labels)
        own, partner = vectors, vectors
        share: float | Tensor = 1.0
        if self.mixup_enabled:
            self.check_network(images)
            draw = self.method.draw(len(images), (images.shape[2], images.shape[3]), self.generator)
            if draw.apply:
                with eval_mode(self.network):
                    mixed = self.method.mix(images, labels.long() if labels.ndim == 1 else vectors, draw)
                images = mixed.images
                if mixed.targets is not None:
                    own = partner = mixed.targets
                elif isinstance(draw, PairDraw):
                    partner, share = partners_of(vectors, draw), mixed.lam
        smoothing = getattr(self.method.options, "smoothing", 0.0)
        return images, mixed_targets(own, partner, share, smoothing)

    def vectors(self, images: Tensor, labels: Tensor) -> Tensor:
        """Labels as vectors (N, K) in float32. A GPU is not waited for, so there their values are not looked
        at."""
        for what, value in {"images": images, "labels": labels}.items():
            if not isinstance(value, Tensor):
                raise UserError(f"{what} are of type {type(value).__name__}; give a torch.Tensor")
        here, classes = labels.device.type == "cpu", self.num_classes
        if labels.ndim == 2:
            check_batch(images, torch.empty(len(labels), dtype=torch.int64))
            if labels.shape[1] != classes:
                raise UserError(
                    f"labels are vectors of {labels.shape[1]}, but num_classes is {classes}; make both equal"
                )
            if here and not bool(((labels >= 0) & (labels <= 1)).all()):
                raise UserError("labels hold values outside of [0, 1]; give each class's share, or 0 and 1")
            return labels.float()
        check_batch(images, labels)
        if here and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UserError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, but num_classes is {classes}; "
                f"labels are from 0 to {classes - 1}"
            )
        return functional.one_hot(labels.long(), classes).float()

    def check_network(self, images: Tensor) -> None:
        """Refuse what cannot be asked of the network, and draws that would repeat themselves."""
        if self.generator is not None and get_worker_info() is not None:
            raise UserError(
                "generator= cannot be used in a worker of a DataLoader, each of which has its own copy and "
                "would draw the same; leave it out (torch seeds its own in each worker), or mix after loading"
            )
        weight = next(self.network.parameters(), None)
        if weight is not None and weight.device != images.device:
            raise UserError(
                f"images are on {images.device}, but the encoder of {self.name} is on {weight.device}; move "
                "one of them to the other"
            )
        if not self._outputs_checked:
            try:
                with eval_mode(self.network):
                    shape = tuple(self.network(images[:1]).shape)
            except RuntimeError as error:
                raise UserError(
                    f"the encoder of {self.name} cannot take images of {tuple(images.shape[1:])} "
                    f"({first_line(error)}); give the network that is trained on them"
                ) from error
            if shape != (1, self.num_classes):
                raise UserError(
                    f"the encoder of {self.name} gives {shape} for one image, not (1, {self.num_classes}) "
                    "logits of num_classes; give the network that is trained on these labels"
                )
            self._outputs_checked = True


def transform_parts(
    name: str, about: Entry, encoder: nn.Module | None, info: EncoderInfo, values: Mapping[str, Any], rng: Rng
) -> dict[str, Any]:
    """What `build_method` takes for a transform besides an encoder and options.

    Raises:
        UserError: a method that is no transform, an option that it does not have as one, or an encoder that
            does not go with it.
    """
    if about.no_transform:
        raise UserError(f"{name} cannot mix a batch in a loop of your own: {about.no_transform}")
    for key in values:
        if key in ELSEWHERE:
            raise UserError(f"{key}= is no option of transform: {ELSEWHERE[key]}")
    known = [field.name for field in fields(about.options_class())]
    if "alpha" in values and "alpha" not in known:
        others = " and ".join(key for key in known if key.endswith("_alpha"))
        raise UserError(f"alpha= is no option of {name}; {f'give {others}' if others else 'leave it out'}")
    if encoder is None and about.needs:
        raise UserError(f"{name} asks a network ({about.needs}) about the images; give one as encoder=")
    if encoder is not None and not (about.needs and isinstance(encoder, nn.Module)):
        remedy = "give a torch.nn.Module" if about.needs else "leave encoder= out, it asks no network"
        raise UserError(f"an encoder of type {type(encoder).__name__} does not go with {name}; {remedy}")
    if not isinstance(info.num_classes, Integral) or info.num_classes < 1:
        raise UserError(f"num_classes is {info.num_classes!r}; give the number of classes, e.g. 100")
    if rng is not None and not (isinstance(rng, torch.Generator) and rng.device.type == "cpu"):
        raise UserError(f"generator is {rng!r}; give one of the CPU, e.g. torch.Generator().manual_seed(0)")
    if np.shape(info.mean) != np.shape(info.std) or np.ndim(info.std) != 1 or np.min(info.std) <= 0:
        raise UserError(f"mean={info.mean} and std={info.std} do not fit; give one number a channel, std > 0")
    parts: dict[str, Any] = {"info": info}
    if encoder is not None and "teacher" in known:
        parts["teacher"] = Teacher(encoder, info)
    return parts
