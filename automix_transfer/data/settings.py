"""What can be set about the data: the set, how its images are cut and read, what to do with bad ones."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from automix_transfer.config import MISSING
from automix_transfer.data.layouts.class_order import ORDERS
from automix_transfer.errors import UserError
from automix_transfer.imagenet import IMAGENET_MEAN, IMAGENET_STD

#: Data sets whose images show several classes each: labels are vectors, see `data.layouts.several`.
MULTI_LABEL = ("voc", "coco")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CHOICES = (
    ("crop", ("random_resized", "pad", "none")),
    ("test_crop", ("center", "squash")),
    ("interpolation", INTERPOLATIONS),
    ("on_bad_image", ("fail", "skip")),
    ("class_order", ORDERS),
    ("sampler", ("shuffle", "balanced", "sqrt")),
)
LEAST = dict.fromkeys(
    ("classes", "resize", "pad", "workers", "limit_classes", "limit_per_class", "test_size"), 0
) | {"image_size": 1, "repeats": 1}
MOST = {"image_size": 4096, "resize": 8192, "test_size": 4096, "repeats": 64}
#: Fields of version 0.1 that changed nothing (both values gave equal pixels): passed over in old checkpoints.
GONE = ("data.decoder",)


@dataclass
class DataConfig:
    """A data set in its native layout, and what is done to its images.

    Attributes:
        dataset: a name of `registry.DATASETS`; ``automix-transfer data check --help`` shows each
            layout.
        root: the folder that holds it.
        classes: how many the data set must have, as a recipe says for its own; another number is refused. 0:
            any.
        train_split, val_split: CUB: train, test (val means the same); Tiny-ImageNet: train, val; Aircraft:
            train, val, trainval, test; folders: any folder's name; VOC: a list, VOC2007/LIST, or several
            joined by +; COCO: train, val, or what is behind instances_; hf: any, val being also validation or
            test where there is no other. ``train[:80%]`` is the first 80 % of the images of each class and
            ``train[80%:]`` the rest, to choose settings without test images.
        image_column, label_column: hf only: the columns of images and labels; empty: image or img, and label,
            labels or fine_label, or the only ones of their kind.
        image_size: side of the square images that the encoder sees, in pixels.
        resize: training only: the shorter side is first resized to this (0: not at all). The fine-grained
            recipe uses 256.
        crop: training: ``random_resized`` (area ``scale``, aspect ``ratio``), ``pad`` (reflection by ``pad``
            pixels, then a random crop: the CIFAR recipe) or ``none`` (resized and cut at the centre).
        flip: training: mirror half of the images.
        randaugment: training: timm's string, e.g. ``rand-m9-mstd0.5-inc1``; empty: off.
        erasing: training: probability of random erasing (timm's, with random pixels).
        class_order: of class folders whose names are all numbers, as labels: ``number`` (0, 1, 2, 10) or
            ``text`` (0, 1, 10, 2, as torchvision's ImageFolder). ``auto`` is number, but asks where a
            classifier is kept whose classes have no names. A run that goes on keeps the order that it has.
        test_crop_ratio: testing: the shorter side becomes image_size / test_crop_ratio, of which the centre
            is cut out.
        test_crop: ``center``, or ``squash``: all of the image, resized to a square (how localization is
            evaluated).
        test_size: testing: side of the images in pixels, where it is another than in training (RSB A3); 0:
            image_size.
        interpolation: of every resizing.
        mean, std: of the RGB input in [0, 1].
        crop_banner: Aircraft only: cut the 20-pixel copyright banner off the bottom.
        workers: loader processes a rank; 0 reads in the training process.
        on_bad_image: ``fail`` stops and names the file; ``skip`` reads every image once before training,
            reports the bad ones and leaves them out.
        limit_classes: keep the first classes only, in label order (0: all).
        limit_per_class: keep the first images of each class in the training split (0: all).
        repeats: repeated augmentation: each batch holds this many differently augmented copies of an image,
            and an epoch sees 1 / repeats of the images.
        sampler: training: ``shuffle``, every image once an epoch; or an epoch of as many images that are
            shared out to the classes equally (``balanced``) or by the square root of what they have
            (``sqrt``): images of small classes come several times, those of large ones not in every epoch.
        mixed: training: a folder of images mixed offline (automix-transfer supermix), added to the split;
            empty: none.
    """

    dataset: str = "imagefolder"
    root: str = MISSING
    classes: int = 0
    train_split: str = "train"
    val_split: str = "val"
    image_column: str = ""
    label_column: str = ""
    image_size: int = 224
    resize: int = 0
    crop: str = "random_resized"
    scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    pad: int = 4
    flip: bool = True
    randaugment: str = ""
    erasing: float = 0.0
    test_crop_ratio: float = 0.875
    test_crop: str = "center"
    test_size: int = 0
    interpolation: str = "bilinear"
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))
    crop_banner: bool = True
    class_order: str = "auto"
    workers: int = 2
    on_bad_image: str = "fail"
    limit_classes: int = 0
    limit_per_class: int = 0
    repeats: int = 1
    sampler: str = "shuffle"
    mixed: str = ""


def most_workers() -> int:
    """How many loader processes this machine can be asked for."""
    return max(64, 4 * (os.cpu_count() or 1))


def check_workers(count: int, option: str = "--workers ") -> None:
    """Refuse a number of processes or threads that is negative or more than `most_workers`."""
    if not 0 <= count <= most_workers():
        raise UserError(f"{option}{count} must be from 0 to {most_workers()}, what this machine takes")


def validate(config: DataConfig) -> None:
    """Check every field's range.

    Raises:
        UserError: names the first field that is out of range and what it may be.
    """
    size = config.image_size
    rules = [
        *(
            (name, getattr(config, name) in choices, f"one of {', '.join(choices)}")
            for name, choices in CHOICES
        ),
        *((name, getattr(config, name) >= least, f"at least {least}") for name, least in LEAST.items()),
        *((name, getattr(config, name) <= most, f"at most {most:,}") for name, most in MOST.items()),
        *(
            (name, config.dataset == "hf" or not getattr(config, name), "left out unless data.dataset=hf")
            for name in ("image_column", "label_column")
        ),
        ("scale", _ascend(config.scale, 1), "two shares of the image's area, 0 < smallest <= largest <= 1"),
        ("ratio", _ascend(config.ratio, 1000), "two aspect ratios, 0 < smallest <= largest <= 1000"),
        ("mean", len(config.mean) == 3 and all(map(math.isfinite, config.mean)), "three finite numbers"),
        ("std", len(config.std) == 3 and all(0 < v < math.inf for v in config.std), "three positive numbers"),
        ("test_crop_ratio", 0.1 <= config.test_crop_ratio <= 1, "from 0.1 to 1"),
        ("erasing", 0 <= config.erasing <= 1, "a probability, from 0 to 1"),
        (
            "pad",
            config.crop != "pad" or config.pad < size,
            f"less than data.image_size={size}, to reflect it",
        ),
    ]
    for name, holds, wanted in rules:
        if not holds:
            raise UserError(f"data.{name}={getattr(config, name)} must be {wanted}")


def _ascend(values: list[float], highest: float) -> bool:
    return len(values) == 2 and 0 < values[0] <= values[1] <= highest
