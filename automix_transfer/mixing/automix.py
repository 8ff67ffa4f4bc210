"""AutoMix: mixed sample generation and mixup classification trained together (Eq. 8, Algorithm 1, appendix A.4).

One step, with q the student, k its moving average and M the Mix Block:

    z       = k(x) up to layer l                          no gradient
    x_q     = M(z, λ_q, π_q)                              no gradient: q's losses must not reach M
    x_k     = M(z, λ_k, π_k)                              gradient to M only
    loss    = CE(q(x)) + MCE(q(x_q), λ_q)                 classification: trains q
            + MCE(k(x_k), λ_k) + ℓ_λ(mask_k, λ_k)         generation: trains M through the frozen k
    update q and M;  k ← m·k + (1-m)·q                    Eq. 12

It costs 8.8 encoder passes (forward, weight gradient and input gradient count one each) where a vanilla step costs 3.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.draw import PairDraw, draw_pairs
from automix_transfer.mixing.heads import classify_with, copy_head, find_classifier
from automix_transfer.mixing.losses import check_batch, check_loss, flat_mask_loss, label_loss, lam_loss, pair_loss
from automix_transfer.mixing.mix_block import MixBlock, RandomGrids, mix
from automix_transfer.mixing.mixup import check_alpha
from automix_transfer.mixing.momentum import BUFFERS, momentum_at, momentum_update
from automix_transfer.mixing.options import AutoMixOptions
from automix_transfer.models.encoders import feature_layer
from automix_transfer.models.taps import feature_channels, features

CHOICES = {
    "mask": ("mix_block", "random_grids"), "lam_loss_schedule": ("linear", "cosine", "constant"), "lam_loss_over": ("mask", "batch"),
    "heads": ("shared", "separate"), "pipeline": ("momentum", "joint"), "k_buffers": BUFFERS, "k_mode": ("train", "eval"),
    "upsampling": ("nearest", "bilinear"),
}
LIVELINESS_PAIRS = 16  #: pairs a step whose mask at λ = 0.5 is looked at for the log


@dataclasses.dataclass(frozen=True)
class AutoMixDraw:
    """λ and partners for q's samples and for k's (Algorithm 1), whether the generator is skipped, and scores for random grids."""

    q: PairDraw
    k: PairDraw
    skip_generator: bool
    scores_seed: int


class AutoMix(Method):
    """AutoMix around any encoder with a feature map at the chosen layer.

    Args:
        encoder: images (N, 3, H, W) to logits (N, K); it becomes q, and a copy of it k.
        options: `AutoMixOptions`; single ones may be given by name instead, e.g. ``AutoMix(encoder, feature_layer="layer3")``.

    Raises:
        UserError: an unknown option value, or a feature layer that does not exist or gives no feature map.
    """

    def __init__(self, encoder: nn.Module, options: AutoMixOptions | None = None, **overrides: Any) -> None:
        super().__init__()
        self.options = options = dataclasses.replace(options or AutoMixOptions(), **overrides)
        check_options(options)
        self.layer = feature_layer(encoder, options.feature_layer)
        self.encoder_q = encoder
        self.head_q = copy_head(encoder) if options.heads == "separate" else None
        if options.pipeline == "momentum":
            self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
            self.head_k = copy.deepcopy(self.head_q).requires_grad_(False) if self.head_q is not None else None
        channels = feature_channels(encoder, self.layer)
        self.mix_block: nn.Module = RandomGrids() if options.mask == "random_grids" else MixBlock(
            channels, lam_embedding=options.lam_embedding, value=options.value, order=options.order, upsampling=options.upsampling,
            init_std=options.init_std, similarity_std=options.similarity_std, lam_slope=options.lam_slope,
            normalize=options.normalize)
        self.progress, self.steps = 0.0, 0

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        draw = self.draw(len(images), rng)
        return self.joint_step(images, labels, draw) if self.options.pipeline == "joint" else self.momentum_step(images, labels, draw)

    def draw(self, count: int, rng: torch.Generator | None = None) -> AutoMixDraw:
        """Everything random of one step."""
        q, k = draw_pairs(count, self.options.alpha, rng), draw_pairs(count, self.options.alpha, rng)
        coin = float(torch.rand((), generator=rng))
        return AutoMixDraw(q, k, coin < self.options.skip_generator, int(torch.randint(2**62, (), generator=rng)))

    def momentum_step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        """Eq. 8 by the momentum pipeline."""
        with torch.no_grad():
            z = features(self.encoder_k, images, self.layer)
            mask_q = self.mask(z, draw.q, images.shape[2:], draw.scores_seed)
            if min(draw.q.lam, 1 - draw.q.lam) <= self.options.small_lam:
                mask_q = torch.full_like(mask_q, draw.q.lam)
            mixed_q = mix(images, images[draw.q.permutation.to(images.device)], mask_q)

        loss, metrics = self.classification_loss(images, labels, mixed_q, draw.q)
        if not draw.skip_generator and self.options.mask == "mix_block":
            mask_k = self.mask(z, draw.k, images.shape[2:])
            mixed_k = mix(images, images[draw.k.permutation.to(images.device)], mask_k)
            logits_k = classify_with(self.encoder_k, self.head_k, mixed_k)
            gen = pair_loss(logits_k, labels, labels[draw.k.permutation.to(labels.device)], draw.k.lam, self.options)
            loss = loss + gen + self.mask_loss(mask_k, draw.k.lam)
            metrics |= {"loss_gen": gen.detach(), "mask_error": mask_error(mask_k, draw.k.lam)}
        elif self.options.mask == "mix_block":
            loss = loss + unused(self.mix_block)
        metrics["mask_std"] = self.liveliness(z, draw.q)
        return StepOutput(loss, metrics, mixed=mixed_q, mask=mask_q, permutation=draw.q.permutation, lam=draw.q.lam)

    def joint_step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        """Table 10 without the momentum pipeline: one encoder, one draw, and the classifier's gradient reaches the Mix Block (Eq. 9)."""
        z = features(self.encoder_q, images, self.layer)
        mask = self.mask(z, draw.q, images.shape[2:], draw.scores_seed)
        mixed = mix(images, images[draw.q.permutation.to(images.device)], mask)
        loss, metrics = self.classification_loss(images, labels, mixed, draw.q)
        loss = loss + self.mask_loss(mask, draw.q.lam)
        metrics |= {"mask_error": mask_error(mask, draw.q.lam), "mask_std": self.liveliness(z.detach(), draw.q)}
        return StepOutput(loss, metrics, mixed=mixed.detach(), mask=mask.detach(), permutation=draw.q.permutation, lam=draw.q.lam)

    def classification_loss(self, images: Tensor, labels: Tensor, mixed: Tensor, pairs: PairDraw) -> tuple[Tensor, dict[str, Tensor]]:
        """ℓ_CE + ℓ_MCE^cls of Eq. 8, for q."""
        logits = classify_with(self.encoder_q, self.head_q, mixed)
        loss = mce = pair_loss(logits, labels, labels[pairs.permutation.to(labels.device)], pairs.lam, self.options)
        metrics = {"loss_mce": mce.detach()}
        if self.options.cross_entropy:
            ce = label_loss(self.encoder_q(images), labels, self.options)
            loss, metrics["loss_ce"] = loss + ce, ce.detach()
        elif self.head_q is not None:
            loss = loss + unused(find_classifier(self.encoder_q))
        return loss, metrics

    def mask(self, z: Tensor, pairs: PairDraw, size: torch.Size | tuple[int, ...], scores_seed: int = 0) -> Tensor:
        """s_i (N, 1, H, W) for every image i and its partner, from the feature maps z (N, C, h, w) of the batch."""
        z_j = z[pairs.permutation.to(z.device)]
        height_width = (int(size[0]), int(size[1]))
        if isinstance(self.mix_block, RandomGrids):
            scores = torch.rand(len(z), z.shape[2] * z.shape[3], generator=torch.Generator().manual_seed(scores_seed))
            return self.mix_block(z, z_j, pairs.lam, height_width, scores)
        return self.mix_block(z, z_j, pairs.lam, height_width)

    def mask_loss(self, mask: Tensor, lam: float) -> Tensor:
        """ℓ_λ of Eq. 7 with γ as of now, and the optional reward for variance."""
        options, left = self.options, 1 - self.progress
        factor = {"linear": left, "cosine": (1 + math.cos(math.pi * self.progress)) / 2, "constant": 1.0}[options.lam_loss_schedule]
        loss = lam_loss(mask, lam, options.lam_loss_weight * factor, options.lam_loss_margin, options.lam_loss_over)
        if options.mask_std_floor:
            loss = loss + options.mask_std_weight * flat_mask_loss(mask, lam, options.mask_std_floor)
        if options.mask_variance_weight:
            loss = loss - options.mask_variance_weight * mask.var(dim=(1, 2, 3), unbiased=False).mean()
        return loss

    @torch.no_grad()
    def liveliness(self, z: Tensor, pairs: PairDraw) -> Tensor:
        """Mean spatial standard deviation of a few masks at λ = 0.5; 0 is the trivial solution of Fig. 6."""
        z_j = z[pairs.permutation[:LIVELINESS_PAIRS].to(z.device)]
        if isinstance(self.mix_block, RandomGrids):
            return z.new_tensor(0.5)  # half the cells are 1, half 0
        mask = self.mix_block(z[:len(z_j)], z_j, 0.5, (z.shape[2], z.shape[3]))
        return mask.flatten(1).std(dim=1, unbiased=False).mean()

    def after_step(self, progress: float) -> None:
        self.progress, self.steps = progress, self.steps + 1
        if self.options.pipeline == "joint":
            return
        m = momentum_at(progress, self.options.momentum, self.options.momentum_end, self.options.momentum_hold)
        if self.options.momentum_warmup:
            m = min(m, self.steps / (self.steps + 9))
        momentum_update(self.encoder_k, self.encoder_q, m, self.options.k_buffers)
        if self.head_q is not None and self.head_k is not None:
            momentum_update(self.head_k, self.head_q, m)

    def encoders(self) -> dict[str, nn.Module]:
        if self.options.pipeline == "joint":
            return {"q": self.encoder_q}
        return {"k": self.encoder_k, "q": self.encoder_q}

    def parameter_groups(self) -> Iterable[dict]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        classifier = [(n, p) for n, p in named if not n.startswith("mix_block.")]
        generator = [(n, p) for n, p in named if n.startswith("mix_block.")]
        yield {"params": classifier, "lr_scale": 1.0, "lr_end": None, "weight_decay": None}
        if generator:
            yield {"params": generator, "lr_scale": self.options.mix_block_lr_scale, "lr_end": self.options.mix_block_lr_end,
                   "weight_decay": self.options.mix_block_weight_decay}

    def train(self, mode: bool = True) -> AutoMix:
        super().train(mode)
        if mode and self.options.pipeline == "momentum" and self.options.k_mode == "eval":
            self.encoder_k.eval()
        return self

    def get_extra_state(self) -> dict[str, float | int]:
        return {"progress": self.progress, "steps": self.steps}

    def set_extra_state(self, state: dict[str, float | int]) -> None:
        self.progress, self.steps = float(state["progress"]), int(state["steps"])


def unused(module: nn.Module) -> Tensor:
    """A zero that depends on every parameter of ``module``: DDP waits for the gradient of each, in every step."""
    return 0 * torch.stack([p.sum() for p in module.parameters()]).sum()


def mask_error(mask: Tensor, lam: float) -> Tensor:
    """Mean distance of the means of masks (N, 1, H, W) from λ, for the log."""
    return (mask.detach().mean(dim=(1, 2, 3)) - lam).abs().mean()


def check_options(options: AutoMixOptions) -> None:
    """Refuse values that mean nothing, naming the key and what it may be."""
    for key, choices in CHOICES.items():
        if getattr(options, key) not in choices:
            raise UserError(f"method.{key}='{getattr(options, key)}' is unknown; choose one of {', '.join(choices)}")
    check_alpha(options.alpha)
    check_loss(options)
    for key in ("momentum", "momentum_end", "momentum_hold", "skip_generator", "small_lam", "lam_loss_margin", "mask_std_floor"):
        if not 0 <= getattr(options, key) <= 1:
            raise UserError(f"method.{key} is {getattr(options, key)}; it must lie between 0 and 1")
    for key in ("lam_loss_weight", "mask_variance_weight", "mask_std_weight", "mix_block_lr_scale", "init_std", "similarity_std"):
        if not 0 <= getattr(options, key) < float("inf"):
            raise UserError(f"method.{key} is {getattr(options, key)}; it must be 0 or more")
