"""Table 10's first row: AutoMix without the momentum pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from automix_transfer.mixing.automix.step import AutoMix, AutoMixDraw, both, mask_error
from automix_transfer.mixing.base import StepOutput
from automix_transfer.mixing.pairs import blend
from automix_transfer.models.taps import features

if TYPE_CHECKING:
    from typing import Self


class JointAutoMix(AutoMix):
    """One encoder and one draw: q's losses reach the Mix Block, and the mask's loss reaches q (Eq. 9)."""

    def __init__(self, encoder: nn.Module, *arguments: Any, **overrides: Any) -> None:
        super().__init__(encoder, *arguments, **overrides)
        del self.encoder_k, self.head_k
        self.uneven_passes = {}

    def step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        partners, draw = draw.permutation, draw.to(images.device)
        z = self.mask_features(images)
        projected = self.mix_block.project(z)
        mask = self.mask_for_q(projected, draw, (images.shape[2], images.shape[3]))
        mixed = blend(*both(images, draw), mask)
        loss, metrics = images.new_zeros(()), {}
        for name, term in self.classification(images, mixed, labels, draw):
            loss, metrics[name] = loss + term, term.detach()
        loss = loss + self.mask_loss(mask, draw.lam)
        metrics |= {"mask_error": mask_error(mask, draw.lam), "mask_std": self.mask_std(projected, draw, z)}
        return StepOutput(loss, metrics, mixed.detach(), mask.detach(), partners, draw.lam)

    def mask_features(self, images: Tensor) -> Tensor:
        return features(self.encoder_q, images, self.layer)

    def after_step(self, progress: float) -> None:
        self.progress, self.steps = progress, self.steps + 1

    def encoders(self) -> dict[str, nn.Module]:
        return {"q": self.encoder_q}

    def train(self, mode: bool = True) -> Self:
        return nn.Module.train(self, mode)
