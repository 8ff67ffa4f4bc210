"""Where the feature maps of an encoder are: layers 1 to 4 with their channels and strides, measured on the
network itself.

``python -m automix_transfer.models.table`` prints them for every encoder of the paper, or for the names that
are given. Shapes come from a forward pass of an image without content ("meta" tensors), so that even the
largest network costs no computation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from automix_transfer.errors import UserError, run_script
from automix_transfer.models.encoders import STEMS, create_encoder, feature_layer, plain_info
from automix_transfer.models.taps import features

#: (name, stem, side of the images) of the paper's experiments: Tables 1 to 5
PAPER_ENCODERS = (
    ("resnet18", "imagenet", 224),
    ("resnet34", "imagenet", 224),
    ("resnet50", "imagenet", 224),
    ("resnet101", "imagenet", 224),
    ("resnext50_32x4d", "imagenet", 224),
    ("resnext101_32x4d", "imagenet", 224),
    ("mobilenetv2_100", "imagenet", 224),
    ("efficientnet_b0", "imagenet", 224),
    ("convnext_tiny", "imagenet", 224),
    ("deit_small_patch16_224", "imagenet", 224),
    ("swin_tiny_patch4_window7_224", "imagenet", 224),
    ("resnet18", "cifar", 32),
    ("resnext50_32x4d", "cifar", 32),
    ("resnet18", "cifar", 64),
    ("resnext50_32x4d", "cifar", 64),
    ("wrn_28_8", "cifar", 32),
)


@dataclass(frozen=True)
class Tap:
    """Layer l of an encoder: the submodule whose output it is, and the map (N, channels, side, side) that
    comes out of it.

    Attributes:
        stride: pixels of the image for each cell of the map, along a side.
        auto: whether it is the layer that ``feature_layer=auto`` takes.
    """

    layer: int
    module: str
    channels: int
    side: int
    stride: int
    auto: bool


def encoder_taps(name: str, stem: str = "imagenet", image_size: int | None = None) -> tuple[Tap, ...]:
    """Layers 1 to 4 of an encoder (fewer where it has fewer) for square images of ``image_size`` (None: what
    it is made for).

    Raises:
        UserError: an unknown encoder, or one whose stages are not known, so that a layer must be given as a
            submodule's name.
    """
    size = image_size or native_size(name, stem)
    encoder = _without_content(name, stem, size)
    device = next(encoder.parameters()).device
    images = torch.zeros(1, 3, size, size, device=device)
    auto = feature_layer(encoder, "auto")
    taps = []
    for layer in (1, 2, 3, 4):
        try:
            module = feature_layer(encoder, layer)
        except UserError:
            if layer == 1:
                raise
            break
        with torch.no_grad():
            shape = features(encoder, images, module).shape
        taps.append(Tap(layer, module, shape[1], shape[3], round(size / shape[3]), module == auto))
    return tuple(taps)


def native_size(name: str, stem: str) -> int:
    """The side in pixels that an encoder is made for: timm's, 32 for the CIFAR networks, else 224."""
    return plain_info(name, 0, stem).image_size


def _without_content(name: str, stem: str, size: int) -> nn.Module:
    """The encoder on the meta device, or on the CPU where its constructor computes with its tensors."""
    try:
        with torch.device("meta"):
            return create_encoder(name, 10, stem, size).eval()
    except (RuntimeError, NotImplementedError):
        return create_encoder(name, 10, stem, size).eval()


def table(encoders: Sequence[tuple[str, str, int | None]] = PAPER_ENCODERS) -> str:
    """A line an encoder: each layer as ``module channels/stride``; the one that ``auto`` takes is starred."""
    rows = [("encoder", "stem", "pixels", "l = 1", "l = 2", "l = 3", "l = 4")]
    for name, stem, size in encoders:
        taps = encoder_taps(name, stem, size)
        cells = [f"{tap.module} {tap.channels}/{tap.stride}{'*' if tap.auto else ''}" for tap in taps]
        rows.append((name, stem, str(size or native_size(name, stem)), *cells, *[""] * (4 - len(cells))))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m automix_transfer.models.table",
        description="Print the feature taps of encoders: "
        "module, channels / stride of layers 1 to 4; * is the layer that feature_layer=auto takes.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="ENCODER", help="as encoder.name (default: every encoder of the paper)"
    )
    parser.add_argument(
        "--stem", choices=STEMS, default="imagenet", help="as encoder.stem, for the names that are given"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="side of the images (default: what the encoder is made for)",
    )
    options = parser.parse_args(arguments)
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image-size {options.image_size} must be at least 1")
    print(table([(name, options.stem, options.image_size) for name in options.names] or PAPER_ENCODERS))
    return 0


if __name__ == "__main__":
    run_script(main)
