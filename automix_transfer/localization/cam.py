"""Class activation maps, in one pass with the classification.

A network that ends in global average pooling and a linear classifier scores class c by the mean over places of
``weight[c] · feature``; without the mean that is a map of evidence (CAM). The reference's form: mean over channels of
``weight[label] * feature``, no bias, no ReLU, for the ground-truth class.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.models.taps import as_map

OUTPUT_STRIDES = (32, 16, 8)
_HEAD_NAMES = ("fc", "head", "classifier", "linear", "heads")
_TOLERANCE = 1e-3  # relative; mixed kernels differ by 1e-6, a norm or a hidden layer between pooling and classifier by far more


class ClassActivation:
    """CAMs and logits of an encoder whose classifier is linear on the spatial mean of a feature map.

    The layer is found, not assumed: it is the last one whose spatial mean is what the classifier reads, tried on a random image.

    Args:
        encoder: put into eval mode; copied first if its stride has to change.
        image_size: side of the square input images, in pixels.
        output_stride: 32, 16 or 8 pixels of the image per cell of the map; ``None`` keeps the network's own. Strides of the last stages
            are set to 1, the dilation is not changed, as in the reference (whose ResNets have stride 16).

    Attributes:
        stride: pixels of the image per cell of the map.
        map_shape: (h, w) of the maps.
        layer: name of the feature layer.

    Raises:
        UserError: no such head, an output stride that cannot be reached, or a map of a single cell.
    """

    def __init__(self, encoder: nn.Module, image_size: int, output_stride: int | None = None) -> None:
        if output_stride is not None:
            encoder = set_output_stride(copy.deepcopy(encoder), image_size, output_stride)
        self.encoder = encoder.eval()
        self.classifier_name, self.classifier = find_classifier(self.encoder)
        self.layer, self.channels_last, self.map_shape = find_map_layer(self.encoder, self.classifier, image_size)
        self.stride = round(image_size / self.map_shape[0])
        if output_stride is not None and self.stride != output_stride:
            raise UserError(f"{type(encoder).__name__} reaches an output stride of {self.stride}, not {output_stride}, at {image_size} px; "
                            "choose another output stride or leave it out")

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """CAMs (N, h, w) of ``labels`` (N,), or of the predicted classes, and logits (N, K) of ``images`` (N, 3, H, W); float32."""
        found: list[Tensor] = []
        handle = self.encoder.get_submodule(self.layer).register_forward_hook(lambda _module, _inputs, output: found.append(output))
        try:
            logits = self.encoder(images)
        finally:
            handle.remove()
        features = _map_of(found[-1], self.channels_last, self.layer).float()
        weights = self.classifier.weight[logits.argmax(1) if labels is None else labels].float()
        return torch.einsum("nchw,nc->nhw", features, weights) / features.shape[1], logits.float()


def find_classifier(encoder: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the encoder's final linear layer.

    Raises:
        UserError: there is none.
    """
    candidates = [getattr(encoder, "get_classifier", lambda: None)(), *(getattr(encoder, name, None) for name in _HEAD_NAMES)]
    for candidate in candidates:
        if isinstance(candidate, nn.Sequential) and len(candidate):
            candidate = candidate[-1]
        if isinstance(candidate, nn.Linear):
            return next(name for name, module in encoder.named_modules() if module is candidate), candidate
    raise UserError(f"{type(encoder).__name__} has no linear classifier, so it has no class activation map (CAM needs global average "
                    "pooling followed by one linear layer, e.g. resnet50 or efficientnet_b0)")


@torch.no_grad()
def find_map_layer(encoder: nn.Module, classifier: nn.Linear, image_size: int) -> tuple[str, bool, tuple[int, int]]:
    """The last layer whose spatial mean is the classifier's input: (name, whether its output is (N, h, w, C), (h, w)).

    Raises:
        UserError: no layer's spatial mean is what the classifier reads, or that layer's map has a single cell.
    """
    seen: list[tuple[str, bool, tuple[int, int], Tensor]] = []
    pooled: list[Tensor] = []

    def look(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim in (3, 4):
            for channels_last in (False, True) if output.ndim == 4 else (False,):
                try:
                    maps = _map_of(output, channels_last, name)
                except UserError:
                    continue
                if maps.shape[1] == classifier.in_features:
                    seen.append((name, channels_last, (maps.shape[2], maps.shape[3]), maps.mean((2, 3))))

    handles = [module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
               for name, module in encoder.named_modules() if name]
    handles.append(classifier.register_forward_pre_hook(lambda _m, inputs: pooled.append(inputs[0].clone())))
    parameter = next(encoder.parameters())
    noise = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(parameter)
    try:
        encoder(noise)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{type(encoder).__name__} does not run on {image_size} px images ({reason}); set --image-size") from error
    finally:
        for handle in handles:
            handle.remove()
    if not pooled or pooled[-1].ndim != 2:
        raise UserError(f"{type(encoder).__name__}'s classifier does not read one vector an image, so it has no class activation map")
    scale = pooled[-1].abs().max()
    fitting = [item for item in seen if (item[3] - pooled[-1]).abs().max() <= _TOLERANCE * scale]
    maps_of_cells = [item for item in fitting if item[2][0] * item[2][1] > 1]
    if maps_of_cells:
        return maps_of_cells[-1][:3]
    if fitting:
        raise UserError(f"{type(encoder).__name__}'s classifier reads a map of a single cell at {image_size} px, which cannot localize: "
                        "set a larger --image-size or a smaller --output-stride, or, if the network has layers between pooling and "
                        "classifier, use one that has none")
    raise UserError(f"{type(encoder).__name__}'s classifier does not read the spatial mean of a feature map (a class token, or a "
                    "layer lies between pooling and classifier), so it has no class activation map; use one such as resnet50")


@torch.no_grad()
def set_output_stride(encoder: nn.Module, image_size: int, output_stride: int) -> nn.Module:
    """Set to 1 every stride of 2 that would coarsen the map beyond ``output_stride`` pixels a cell, in place; dilation stays.

    Raises:
        UserError: the stride is not 32, 16 or 8, or the encoder has a strided layer of another kind.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f"output stride {output_stride} is unknown; choose one of {', '.join(map(str, OUTPUT_STRIDES))}")
    coarse: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple) -> None:
        if _stride(module) > 1 and round(image_size / inputs[0].shape[-2]) >= output_stride:
            coarse.append(name)

    modules = dict(encoder.named_modules())
    # Whatever strides over an input that is already as coarse as wanted has to stop; one probe of the unchanged network tells them all.
    handles = [module.register_forward_pre_hook(lambda m, inputs, name=name: look(name, m, inputs))
               for name, module in modules.items() if _stride(module) > 1]
    parameter = next(encoder.parameters())
    try:
        encoder.eval()(torch.zeros(1, 3, image_size, image_size).to(parameter))
    finally:
        for handle in handles:
            handle.remove()
    for name in coarse:
        module = modules[name]
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, nn.AvgPool2d):  # the shortcut of ResNet-D: at stride 1 it does not pool at all
            encoder.set_submodule(name, nn.Identity())
        else:
            raise UserError(f"{type(encoder).__name__}'s layer '{name}' ({type(module).__name__}) has a stride that cannot be removed; "
                            "leave the output stride as it is")
    return encoder


def _stride(module: nn.Module) -> int:
    stride = getattr(module, "stride", 1) if not isinstance(module, nn.Sequential) and not list(module.children()) else 1
    stride = stride[0] if isinstance(stride, tuple) else stride
    return stride if isinstance(stride, int) else 1


def _map_of(output: Tensor, channels_last: bool, layer: str) -> Tensor:
    return output.permute(0, 3, 1, 2) if channels_last else as_map(output, layer)
