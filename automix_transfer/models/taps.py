"""Feature taps: the feature map of any network at a named layer, without changing the network.

A forward hook reads the output of one submodule. `features` stops the forward pass there, which saves the
layers behind it (for ResNet-18 and layer 3 about a quarter of a pass). timm's `forward_intermediates` gives
the same values, but lays the maps of transformers out otherwise in memory, which changes later sums' bits.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.models.hiera import Hiera
from torch import Tensor, nn

from automix_transfer.errors import UserError, first_line
from automix_transfer.models.checkpointing import unchecked
from automix_transfer.models.eval_mode import eval_mode

SMALL = 64  #: side in pixels of a blank image for networks of any size


class _Stop(Exception):
    """Raised by the hook to leave the forward pass once the tapped layer has run."""


def features(encoder: nn.Module, images: Tensor, layer: str, whole: bool = False) -> Tensor:
    """The feature map (N, C, h, w) of ``encoder`` at submodule ``layer``; the layers behind it run only where
    the ``whole`` pass is wanted, for what they note of it.

    Raises:
        UserError: ``layer`` does not exist, or its output is no feature map; see `as_map`.
    """
    with tapped(encoder, layer, stop=not whole) as found:
        # Not compiled, even where the encoder is: each new hook would compile it again.
        encoder.forward(images)
    return found[0]


@contextmanager
def tapped(encoder: nn.Module, layer: str, stop: bool = False) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass of ``encoder`` appends its feature map (N, C, h, w) at ``layer``,
    with its gradient; ``stop`` ends the block there.

    Raises:
        UserError: as `features`, or the layer did not run.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found.append(as_map(output, layer, encoder))
        if stop:
            raise _Stop

    handle = find_layer(encoder, layer).register_forward_hook(keep)
    try:
        with unchecked(encoder):
            yield found
    except _Stop:
        pass
    finally:
        handle.remove()
    if not found:
        raise UserError(
            f"feature layer '{layer}' did not run in {type(encoder).__name__}'s forward pass; choose a layer "
            "on its path"
        )


def find_layer(encoder: nn.Module, layer: str) -> nn.Module:
    """The submodule called ``layer``; a `UserError` that suggests some where there is none."""
    modules = dict(encoder.named_modules())
    if layer and layer in modules:
        return modules[layer]
    close = difflib.get_close_matches(layer, list(modules), n=3)
    close = close or [name for name in modules if name and name.count(".") <= 1][:12]
    raise UserError(
        f"feature layer '{layer}' does not exist in {type(encoder).__name__}; for example: {', '.join(close)}"
    )


def as_map(output: Tensor, layer: str, encoder: nn.Module) -> Tensor:
    """The output of ``encoder``'s submodule ``layer`` as a map (N, C, h, w).

    The channels of maps come first. Tokens (N, T, C) lose their prefix tokens and are laid out row by row to
    a square; Hiera's, which lie window by window, by its own rule.

    Raises:
        UserError: it is no map, or tokens whose places are not known.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"feature layer '{layer}' gives {shape}, not a feature map (N, C, h, w) or tokens (N, T, C); "
            "choose an earlier layer"
        )
    if output.ndim == 4:
        return output.movedim(channel_axis(output, layer, encoder), 1)
    if isinstance(encoder, Hiera):
        block = layer.removeprefix("blocks.")
        if not block.isdigit():
            raise UserError(
                f"feature layer '{layer}' gives tokens in the order of Hiera's windows, which is known for "
                "whole blocks only; choose one of those, e.g. blocks.9"
            )
        return encoder.reroll(output, int(block)).permute(0, 3, 1, 2)
    tokens, prefix = output.shape[1], getattr(encoder, "num_prefix_tokens", 1)
    side = math.isqrt(tokens)
    if tokens - side * side not in (0, prefix):
        raise UserError(
            f"feature layer '{layer}' gives {tokens} tokens, which are no square of patches behind {prefix} "
            "prefix tokens; give square images, or choose another layer"
        )
    patches = output[:, tokens - side * side :]  # class and distillation tokens come first
    return patches.transpose(1, 2).unflatten(2, (side, side))


def channel_axis(output: Tensor, layer: str, encoder: nn.Module) -> int:
    """Where a layer's output has its channels: 1 in maps (N, C, h, w), -1 in tokens and in maps (N, h, w, C).

    timm says how many channels its stages have. Elsewhere images are square, so maps are; a cube is what timm
    says of the network.
    """
    if output.ndim == 3:
        return -1
    first, middle, last = output.shape[1:]
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(encoder, "feature_info", [])}
    if first != last and stages.get(layer) in (first, last):
        return 1 if stages[layer] == first else -1
    if (first == middle) != (middle == last):
        return 1 if middle == last else -1
    return -1 if getattr(encoder, "output_fmt", "") == "NHWC" else 1


def feature_channels(encoder: nn.Module, layer: str) -> int:
    """Channels of the map at ``layer``, found with one forward pass of a blank image; no state changes.

    The image is small, which costs little, or has the network's own side where it does not take a small one.

    Raises:
        UserError: as `features`, or the network takes neither.
    """
    own = own_size(encoder)
    for image_size in (SMALL, own):
        try:
            return blank_map(encoder, layer, image_size).shape[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            refusal = error
    raise UserError(
        f"{type(encoder).__name__} takes images neither of {SMALL} px nor of {own} px up to feature layer "
        f"'{layer}' ({first_line(refusal)}); choose another encoder.name, or build it for another "
        "data.image_size"
    ) from refusal


def own_size(encoder: nn.Module) -> int:
    """The side in pixels that a network is built for, by its patches or timm; 224 where neither says it."""
    patches = getattr(getattr(encoder, "patch_embed", None), "img_size", None)
    config = getattr(encoder, "pretrained_cfg", None) or {}
    return (patches or config.get("input_size") or (224,))[-1]


def feature_grid(encoder: nn.Module, layer: str, image_size: int) -> tuple[int, int]:
    """(h, w) of the map at ``layer`` for images of this side, found as `feature_channels` does."""
    height, width = blank_map(encoder, layer, image_size).shape[2:]
    return height, width


@torch.no_grad()
def blank_map(encoder: nn.Module, layer: str, image_size: int) -> Tensor:
    """The map of one blank image at ``layer``; no state changes."""
    with eval_mode(encoder):
        return features(encoder, blank_image(encoder, image_size), layer)


def blank_image(encoder: nn.Module, image_size: int) -> Tensor:
    """One black image (1, 3, s, s) where the network is and in its precision."""
    parameter = next(encoder.parameters())
    return torch.zeros(1, 3, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
