"""Class maps in one pass with the logits: CAM, Grad-CAM, Grad-CAM++, LayerCAM, Score-CAM.

A network that ends in global average pooling and a linear classifier scores class c by the mean over places
of ``weight[c] · feature``; without the mean that is a map of evidence (CAM), which the reference uses. The
others take any head.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.localization.maps.layers import REMEDY, gradient_map_layer, keep_leaf, linear_map_layer
from automix_transfer.localization.maps.map_formulas import GRADIENT_FORMULAS, METHODS, cam
from automix_transfer.localization.maps.strides import set_output_stride
from automix_transfer.models.classifier import find_classifier
from automix_transfer.models.taps import as_map

_MASKS_A_PASS = 64  # of Score-CAM: masked images a forward pass


class ClassActivation:
    """Maps of a class and logits of an encoder.

    Args:
        encoder: put into eval mode; copied first if its stride has to change.
        image_size: side of the square input images, in pixels.
        output_stride: 32, 16 or 8 pixels of the image per cell of the map; ``None`` keeps the network's own.
            Strides of the last stages are set to 1, the dilation is not changed, as in the reference (whose
            ResNets have stride 16).
        method: ``cam``, ``gradcam``, ``gradcam++``, ``layercam`` or ``scorecam``; a batch costs one forward
            pass, the ones with gradients a backward pass from the scores to the layer too, and Score-CAM a
            forward pass an image and channel.
        layer: layer of the map; ``None``: see `gradient_map_layer`. CAM's is where the classifier reads.

    Attributes:
        stride: pixels of the image per cell of the map.
        map_shape: (h, w) of the maps.
        layer: name of the feature layer.

    Raises:
        UserError: an unknown method, no linear head for CAM, a layer without a map, an output stride that
            cannot be reached.
    """

    def __init__(
        self,
        encoder: nn.Module,
        image_size: int,
        output_stride: int | None = None,
        method: str = "cam",
        layer: str | None = None,
    ) -> None:
        if method not in METHODS:
            raise UserError(f"map method '{method}' is unknown; choose one of {', '.join(METHODS)}")
        if method == "cam" and layer:
            raise UserError(
                f"CAM is taken where the classifier reads, so there is no choice of layer '{layer}'; choose "
                "another --method"
            )
        if output_stride is not None:
            encoder = set_output_stride(copy.deepcopy(encoder), image_size, output_stride)
        self.encoder, self.method = encoder.eval(), method
        if method == "cam":
            self.classifier = find_classifier(self.encoder, REMEDY)
            map_layer = linear_map_layer(self.encoder, self.classifier, image_size)
        else:
            map_layer = gradient_map_layer(self.encoder, image_size, layer)
        self.layer, self.map_shape = map_layer.name, map_layer.shape
        self.stride = round(image_size / self.map_shape[0])
        if output_stride is not None and self.stride != output_stride:
            raise UserError(
                f"{type(encoder).__name__} reaches an output stride of {self.stride}, not {output_stride}, "
                f"at {image_size} px; choose another output stride or leave it out"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps (N, h, w) of ``labels`` (N,) or of the predicted classes, and logits (N, K); float32."""
        found: list[Tensor] = []
        formula = GRADIENT_FORMULAS.get(self.method)
        layer = self.encoder.get_submodule(self.layer)
        handle = layer.register_forward_hook(
            keep_leaf(found) if formula else lambda _module, _inputs, output: found.append(output)
        )
        try:
            scores = self.encoder(images)
        finally:
            handle.remove()
        logits = scores.detach().float()
        classes = logits.argmax(1) if labels is None else labels
        features = as_map(found[-1].detach(), self.layer, self.encoder).float()
        if formula:
            # Rows of a batch do not meet in eval mode, so the gradient of the sum is each image's own
            gradient = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), found[-1])[0]
            return formula(features, as_map(gradient, self.layer, self.encoder).float()), logits
        if self.method == "cam":
            return cam(features, self.classifier.weight[classes].float()), logits
        each = zip(images, features, classes, strict=True)
        return torch.stack([self._score_cam(*image) for image in each]), logits

    def _score_cam(self, image: Tensor, features: Tensor, label: Tensor) -> Tensor:
        """(h, w) Score-CAM map of one image.

        A channel weighs the softmax over channels of the class's score when the image is masked by the
        channel (resized, scaled to [0, 1]); the score of the unmasked baseline, which the paper subtracts,
        cancels (Wang et al. 2020).
        """
        low, high = features.amin((1, 2)), features.amax((1, 2))
        live = (high > low).nonzero().flatten()  # a constant channel masks nothing
        scores = torch.full((len(features),), -torch.inf, device=features.device)
        for some in live.split(_MASKS_A_PASS):
            masks = F.interpolate(features[some, None], image.shape[-2:], mode="bilinear")
            smallest, largest = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masked = image * ((masks - smallest) / (largest - smallest)).to(image)
            scores[some] = self.encoder(masked)[:, label].float()
        weights = scores.softmax(0) if len(live) else torch.zeros_like(scores)
        return torch.einsum("chw,c->hw", features, weights).relu()
