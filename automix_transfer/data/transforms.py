"""From a PIL image to the encoder's input: the training and the testing transform of a `DataConfig`.

Random ones draw from the global generators of torch, NumPy and Python, which the data set reseeds for each
sample. All but the last step works on PIL images: on a CPU the fastest path for small and for large images,
and the one that reference figures come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)

from automix_transfer.data.settings import INTERPOLATIONS, DataConfig, validate
from automix_transfer.errors import UserError

Transform = Callable[[Image.Image], Tensor]
THIN = 16  #: sides of an image, long to short, beyond which it is a strip
MOST_PIXELS = 1 << 26  #: of a resized strip
RESAMPLING = {mode: Image.Resampling[mode.name] for mode in map(InterpolationMode, INTERPOLATIONS)}


class ToNormalized:
    """PIL RGB (H, W) -> float32 tensor (3, H, W), (value / 255 - mean) / std.

    Two passes over the pixels instead of torchvision's four.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32)[:, None, None]
        self.std = 255 * torch.tensor(std, dtype=torch.float32)[:, None, None]

    def __call__(self, image: Image.Image) -> Tensor:
        # of a PIL image, or of (H, W, 3) values that a view was made of
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).div_(self.std)

    def __repr__(self) -> str:
        mean, std = ((value / 255).flatten().tolist() for value in (self.mean, self.std))
        return f"ToNormalized(mean={mean}, std={std})"


class SkipIfSize:
    """A resizing that leaves a square image of the wanted size alone, as 64-pixel sets have at 64 pixels."""

    def __init__(self, size: int, resize: Callable[[Image.Image], Image.Image]) -> None:
        self.size, self.resize = size, resize

    def __call__(self, image: Image.Image) -> Image.Image:
        return image if image.size == (self.size, self.size) else self.resize(image)

    def __repr__(self) -> str:
        return f"SkipIfSize({self.size}, {self.resize})"


class Bounded(Resize):
    """``Resize`` of the short side that refuses images so thin that they would not fit into memory."""

    def forward(self, img: Image.Image) -> Image.Image:
        """The resized image, or a `UserError`."""
        short, long = sorted(img.size)
        if long > THIN * short and self.size**2 * long > MOST_PIXELS * short:
            raise UserError(
                f"an image of {img.width} x {img.height} pixels is too thin for data.resize={self.size}; "
                "cut it into parts, remove it, or leave data.resize out"
            )
        return super().forward(img)


class CentreResize(Resize):
    """``Resize`` of the short side before a ``CenterCrop(crop)``, which cuts a strip's ends off: of a strip
    that would be huge only the middle is made, which has the same pixels."""

    def __init__(self, size: int, crop: int, mode: InterpolationMode) -> None:
        super().__init__(size, mode)
        self.crop = crop

    def forward(self, img: Image.Image) -> Image.Image:
        """The resized image, or its middle."""
        short, long = sorted(img.size)
        whole = int(self.size * long / short)
        if long <= THIN * short or whole * self.size <= MOST_PIXELS:
            return super().forward(img)
        start, margin = round((whole - self.crop) / 2), 4 * self.size  # beyond any filter's support
        ends = [long / whole * place for place in (start - margin, start + self.crop + margin)]
        size, box = (self.crop + 2 * margin, self.size), (ends[0], 0, ends[1], short)
        if img.width == short:
            size, box = size[::-1], (0, ends[0], short, ends[1])
        return img.resize(size, RESAMPLING[self.interpolation], box)


def train_transform(config: DataConfig) -> Transform:
    """The training transform: PIL RGB of any size -> float32 (3, image_size, image_size).

    Raises:
        UserError: a field of ``config`` is out of range.
    """
    validate(config)
    size, mode = config.image_size, InterpolationMode(config.interpolation)
    steps: list[Callable] = []
    if config.resize:
        steps.append(Bounded(config.resize, mode))
    if config.crop == "random_resized":
        steps.append(RandomResizedCrop(size, tuple(config.scale), tuple(config.ratio), mode))
    elif config.crop == "pad":
        steps += [
            SkipIfSize(size, Resize((size, size), mode)),
            RandomCrop(size, padding=config.pad, padding_mode="reflect"),
        ]
    else:
        steps += [SkipIfSize(size, CentreResize(size, size, mode)), CenterCrop(size)]
    if config.flip:
        steps.append(RandomHorizontalFlip())
    if config.randaugment:
        steps.append(_rand_augment(config))
    steps.append(ToNormalized(config.mean, config.std))
    if config.erasing:
        steps.append(RandomErasing(config.erasing, mode="pixel", device="cpu"))
    return Compose(steps)


def eval_transform(config: DataConfig) -> Transform:
    """The testing transform: the centre of the resized image, or with ``test_crop=squash`` all of it.

    Raises:
        UserError: a field of ``config`` is out of range.
    """
    validate(config)
    size, mode = config.test_size or config.image_size, InterpolationMode(config.interpolation)
    if config.test_crop == "squash":
        geometry: list[Callable] = [SkipIfSize(size, Resize((size, size), mode))]
    elif config.test_crop_ratio == 1:
        geometry = [SkipIfSize(size, CentreResize(size, size, mode)), CenterCrop(size)]
    else:
        geometry = [CentreResize(round(size / config.test_crop_ratio), size, mode), CenterCrop(size)]
    return Compose([*geometry, ToNormalized(config.mean, config.std)])


def split_at_tensor(transform: Callable) -> tuple[Callable[[Image.Image], Image.Image], Transform]:
    """A transform in two: what makes images of images, and what makes a tensor of the result.

    The latter also takes (H, W, 3) values to 255.

    Raises:
        UserError: the transform is not one of the two above, so that it is not known where views may begin to
            differ.
    """
    steps = list(getattr(transform, "transforms", []))
    place = next((at for at, step in enumerate(steps) if isinstance(step, ToNormalized)), None)
    if place is None:
        raise UserError(
            "a method with several views of an image needs a transform that ends in ToNormalized; use "
            "train_transform"
        )
    return Compose(steps[:place]), Compose(steps[place:])


def _rand_augment(config: DataConfig) -> Callable[[Image.Image], Image.Image]:
    fill = tuple(min(255, round(255 * m)) for m in config.mean)
    # timm's own convention: translations up to 45 % of the side, the mean colour where nothing is left
    options = {"translate_const": int(config.image_size * 0.45), "img_mean": fill}
    try:
        # timm passes over what it does not know
        if not re.fullmatch(r"rand(-[a-z]+[\d.]+[a-z]*)*", config.randaugment):
            raise ValueError
        made = rand_augment_transform(config.randaugment, options)
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"data.randaugment='{config.randaugment}' is not understood by timm; write e.g. "
            "rand-m9-mstd0.5-inc1"
        ) from error
    for operation in made.ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize
    return made


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's, which keeps 0 bits now and then: a black image to Pillow 12, and an error to Pillow 13."""
    return auto_augment.posterize(image, bits, **options) if bits else Image.new(image.mode, image.size)
