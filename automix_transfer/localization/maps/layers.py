"""Which layer of a network a map is taken from: tried on an image of noise, not assumed from names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError, first_line
from automix_transfer.models.classifier import find_classifier
from automix_transfer.models.encoders import feature_layer
from automix_transfer.models.taps import as_map, find_layer

# relative; mixed kernels differ by 1e-6, a norm or a hidden layer between pooling and classifier by far more
_TOLERANCE = 1e-3
REMEDY = "choose --method gradcam, gradcam++, layercam or scorecam, which take any head"


@dataclass(frozen=True)
class MapLayer:
    """A layer with a map (N, C, h, w), (N, h, w, C) or tokens (N, prefix + h·w, C), for square images.

    Attributes:
        name: of the submodule.
        shape: (h, w).
    """

    name: str
    shape: tuple[int, int]


@torch.no_grad()
def linear_map_layer(encoder: nn.Module, classifier: nn.Linear, image_size: int) -> MapLayer:
    """The last layer whose spatial mean is the classifier's input: the one that CAM reads.

    Raises:
        UserError: no layer's spatial mean is what the classifier reads, or that layer's map has a single
            cell.
    """
    seen: list[tuple[MapLayer, Tensor]] = []
    pooled: list[Tensor] = []

    def look(name: str, output: Any) -> None:
        try:
            maps = as_map(output, name, encoder)
        except UserError:  # the other layers are looked at all the same
            return
        if maps.shape[1] == classifier.in_features:
            seen.append((MapLayer(name, (maps.shape[2], maps.shape[3])), maps.mean((2, 3))))

    hooks: list[Any] = [
        module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
        for name, module in encoder.named_modules()
        if name
    ]
    hooks.append(classifier.register_forward_pre_hook(lambda _m, inputs: pooled.append(inputs[0].clone())))
    run_on_noise(encoder, image_size, hooks)
    if not pooled or pooled[-1].ndim != 2:
        raise UserError(
            f"{type(encoder).__name__}'s classifier does not read one vector an image, so it has no CAM; "
            f"{REMEDY}"
        )
    scale = pooled[-1].abs().max()
    fitting = [layer for layer, mean in seen if (mean - pooled[-1]).abs().max() <= _TOLERANCE * scale]
    with_cells = [layer for layer in fitting if layer.shape[0] * layer.shape[1] > 1]
    if with_cells:
        return with_cells[-1]
    if fitting:
        raise UserError(
            f"{type(encoder).__name__}'s classifier reads a map of a single cell at {image_size} px, which "
            "cannot localize: set a larger --image-size or a smaller --output-stride; if the network has "
            "layers between pooling and classifier, " + REMEDY
        )
    raise UserError(
        f"{type(encoder).__name__}'s classifier does not read the spatial mean of a feature map (a class "
        f"token, or a layer lies between pooling and classifier), so it has no CAM; {REMEDY}"
    )


def gradient_map_layer(encoder: nn.Module, image_size: int, name: str | None = None) -> MapLayer:
    """The layer that Grad-CAM and its kin read: ``name``, or CAM's, or the last stage.

    Where only a class token leaves the last block of a vision transformer, no gradient reaches that block's
    patches, and what goes into it is taken (its ``norm1``).

    Raises:
        UserError: no such layer, no map, a map of a single cell, or one that the scores do not depend on.
    """
    names = [name] if name else []
    if not name:
        try:
            names.append(linear_map_layer(encoder, find_classifier(encoder), image_size).name)
        except UserError:
            stage = feature_layer(encoder, 4)
            names += [stage, f"{stage}.norm1"]
    reason = ""
    for candidate in names:
        found: list[Tensor] = []
        hook = find_layer(encoder, candidate).register_forward_hook(keep_leaf(found))
        with torch.no_grad():
            scores = run_on_noise(encoder, image_size, [hook])
        maps = as_map(found[-1], candidate, encoder) if found else torch.zeros(1, 1, 1, 1)
        shape = (maps.shape[2], maps.shape[3])
        if not found or not scores.requires_grad:
            reason = "it does not run"
        elif shape[0] * shape[1] < 2:
            reason = f"its map has a single cell at {image_size} px"
        else:
            gradient = torch.autograd.grad(scores.sum(), found[-1], allow_unused=True)[0]
            if (
                gradient is not None
                and as_map(gradient, candidate, encoder).abs().sum((0, 1)).count_nonzero() > 1
            ):
                return MapLayer(candidate, shape)
            reason = "the scores do not depend on its places"
    raise UserError(
        f"{type(encoder).__name__}'s layer '{names[-1]}' gives no map ({reason}); name an earlier one with "
        "--map-layer, or set a larger --image-size"
    )


def keep_leaf(found: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook for a pass under ``no_grad`` that records gradients from this layer on.

    Its output goes on as a leaf, kept in ``found``, so nothing is stored of the layers before it, and a
    backward pass stops at it.
    """

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # until the surrounding no_grad ends
        leaf = output.detach().requires_grad_()
        found.append(leaf)
        return leaf * 1  # layers behind it may work in place, which a leaf does not allow

    return hook


def run_on_noise(encoder: nn.Module, image_size: int, hooks: list[Any]) -> Tensor:
    """Logits of two images of noise; the hooks are removed afterwards.

    Raises:
        UserError: the encoder does not run at this size.
    """
    parameter = next(encoder.parameters())
    noise = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        return encoder(noise.to(parameter))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{type(encoder).__name__} does not run on {image_size} px images ({first_line(error)}); set "
            "--image-size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
