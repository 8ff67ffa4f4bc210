"""A frozen, trained network that a method asks about its images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from automix_transfer.errors import UserError
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.taps import features, find_layer
from automix_transfer.models.weights import load_encoder


class Teacher:
    """Holds the network outside of the method's modules: it is not trained, not saved in checkpoints (its
    file is named in the recipe), and follows the images to their device. It stays in eval mode unless
    ``train_mode`` says otherwise.

    Args:
        network: images in the normalisation of ``info`` to logits.
    """

    def __init__(self, network: nn.Module, info: EncoderInfo) -> None:
        self._network, self.info = (network,), info

    @classmethod
    def load(
        cls,
        weights: str,
        name: str = "",
        asked_by: str = "this method",
        instead: str = "mixup or cutmix",
        which: str | None = None,
    ) -> Teacher:
        """The network of a file, frozen.

        Raises:
            UserError: no file is given, or it does not fit; see `load_encoder`.
        """
        if not weights:
            raise UserError(
                f"method.teacher_weights is empty, but {asked_by} needs a trained network; give the file of "
                f"one, or choose a method that needs none, e.g. {instead}"
            )
        encoder, info = load_encoder(weights, name or None, which)
        return cls(encoder.requires_grad_(False).eval(), info)

    @property
    def network(self) -> nn.Module:
        return self._network[0]

    def inputs(self, images: Tensor, info: EncoderInfo | None, side: int | None) -> Tensor:
        """``images`` (N, 3, H, W), normalised as ``info`` says, in the teacher's normalisation and with its
        side in pixels (None: as they are)."""
        self.network.to(images.device)
        images = images.float()
        if info is not None and (info.mean, info.std) != (self.info.mean, self.info.std):
            mean, std, own_mean, own_std = (
                torch.tensor(v, device=images.device).view(-1, 1, 1)
                for v in (info.mean, info.std, self.info.mean, self.info.std)
            )
            images = (images * std + mean - own_mean) / own_std
        if side is not None and images.shape[2:] != (side, side):
            images = functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        return images

    @torch.no_grad()
    def feature_maps(self, images: Tensor, layer: str, train_mode: bool = False) -> Tensor:
        """(N, C, h, w) at submodule ``layer``; ``train_mode``: BatchNorm uses the batch's statistics (its own
        stay as they are)."""
        find_layer(self.network, layer)
        if not train_mode:
            return features(self.network, images, layer).float()
        before = {name: value.clone() for name, value in self.network.named_buffers()}
        self.network.train()
        try:
            return features(self.network, images, layer).float()
        finally:
            self.network.eval()
            for name, value in self.network.named_buffers():
                value.copy_(before[name])
