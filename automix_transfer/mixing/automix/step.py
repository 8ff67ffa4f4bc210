"""AutoMix: mixed samples and their classifier are learned together (Eq. 8, Algorithm 1, appendix A.4).

q is the student, k its moving average, M the Mix Block. A step costs 8.8 passes of the encoder, where
forward, weight gradient and input gradient count as one each: 0.8 for k's features up to layer l, 3 for q on
mixed and 3 on clean images, and 2 through k for the gradient to M. A vanilla step costs 3.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError, warn_renamed
from automix_transfer.mixing.automix.mix_block import MixBlock, RandomGrids
from automix_transfer.mixing.automix.momentum import momentum_at, momentum_update, warmed_up
from automix_transfer.mixing.automix.offline import TrainedMixBlock
from automix_transfer.mixing.automix.options import AutoMixOptions, check_options, read_options
from automix_transfer.mixing.base import Method, Mixed, StepOutput
from automix_transfer.mixing.draw import PairDraw, Rng, Size, draw_pairs
from automix_transfer.mixing.heads import classify_with, copy_head, draw_heads
from automix_transfer.mixing.losses import flat_mask_loss, gamma_at, label_loss, lam_loss, pair_loss
from automix_transfer.mixing.pairs import blend
from automix_transfer.mixing.parts.freed import FreedLoss
from automix_transfer.models.classifier import find_classifiers
from automix_transfer.models.encoders import EncoderInfo, feature_layer
from automix_transfer.models.taps import feature_channels, features

if TYPE_CHECKING:
    from typing import Self

LIVELINESS_PAIRS = 16  #: pairs a step whose mask at λ = 0.5 is looked at for the log


@dataclass(frozen=True)
class AutoMixDraw(PairDraw):
    """Everything random of a step: λ_q and π_q for q's samples, and what follows.

    Attributes:
        k: λ_k and π_k for the samples that M learns from; of a part of the batch, the first pairs.
        skip_generator: M does not learn in this step.
        seed: of what a Mix Block draws itself, e.g. random grids.
    """

    k: PairDraw
    skip_generator: bool = False
    seed: int = 0

    def to(self, device: torch.device) -> Self:
        return dataclasses.replace(super().to(device), k=self.k.to(device))


class AutoMix(Method):
    """AutoMix around any encoder with a feature map at the chosen layer.

    Args:
        encoder: images (N, 3, H, W) to logits (N, K); it becomes q, and a copy of it k.
        mix_block: any module with ``project(z)``, from feature maps (N, C, h, w) to whatever can be indexed
            by images, and ``pair_mask(z_i, z_j, lam, size)``, from that of both images of n pairs to the
            share s_i (n, 1, H, W) of image i. If it has ``features(images, info)`` too, masks are made from
            these. None: the Mix Block that the options describe.
        options: single ones may be given by name instead, e.g. ``AutoMix(encoder, feature_layer="layer3")``;
            ``preset`` by name brings the preset's values, which the other names win over.

    Raises:
        UserError: a value out of range, an option of a subclass, or a feature layer that does not exist or
            gives no feature map.
    """

    def __init__(
        self,
        encoder: nn.Module,
        mix_block: nn.Module | None = None,
        options: AutoMixOptions | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__()
        if options is None and "preset" in overrides:
            given, options, overrides = overrides["preset"], read_options(overrides), {}
            if options.preset != given:
                warn_renamed(f"preset={given!r}", f"preset={options.preset!r}")
        self.options = options = dataclasses.replace(options or AutoMixOptions(), **overrides)
        check_options(options)
        wanted, key = options.asks_for()
        if wanted not in [cls.__name__ for cls in type(self).__mro__]:
            raise UserError(
                f"method.{key}={getattr(options, key)} needs {wanted}, which build_method chooses"
            )
        if options.k_mode == "train" and options.skip_generator:
            self.uneven_passes = {"skip_generator": 0}
        self.layer = feature_layer(encoder, options.feature_layer)
        self.encoder_q = encoder
        self.head_q = copy_head(encoder) if options.heads == "separate" else None
        if options.head_std is not None:
            own = find_classifiers(encoder, "leave method.head_std=null")
            draw_heads(options.head_std, *own, self.head_q)
        self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
        self.encoder_k.train(options.k_mode == "train")
        self.head_k = copy.deepcopy(self.head_q).requires_grad_(False) if self.head_q is not None else None
        channels = feature_channels(encoder, self.layer)
        self.mix_block: Any = build_mix_block(channels, options) if mix_block is None else mix_block
        self.progress, self.steps = 0.0, 0
        self.info: EncoderInfo | None = None

    def prepare(self, info: EncoderInfo) -> None:
        self.info = info

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> AutoMixDraw:
        alpha, derangement = self.options.alpha, self.options.partners == "derangement"
        q = draw_pairs(count, alpha, rng, lam, derangement)
        k = draw_pairs(count, alpha, rng, derangement=derangement)
        skip = float(torch.rand((), generator=rng)) < self.options.skip_generator
        seed = int(torch.randint(2**62, (), generator=rng))
        return AutoMixDraw(q.lam, q.permutation, k, skip, seed)

    def step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        """Algorithm 1 for one batch: the terms of Eq. 8. Its last line, Eq. 12, is `after_step`."""
        partners, draw, size = draw.permutation, draw.to(images.device), (images.shape[2], images.shape[3])
        z = self.mask_features(images)  # f_k(x) up to layer l, without a gradient
        projected = self.mix_block.project(z)  # once for all masks of the step
        with torch.no_grad():  # q's losses must not reach M
            mask_q = self.mask_for_q(projected, draw, size)  # Eqs. 5 and 6
            x_q = blend(*both(images, draw), mask_q)  # Eq. 4
            mask_std = self.mask_std(projected, draw, z)  # for the log

        loss = FreedLoss(self.parameters())  # Eq. 8; the graph of a term is freed before the next is built
        classification = self.classification(images, x_q, labels, draw)  # trains q
        metrics = {name: loss.add(term) for name, term in classification}
        if self.learns and not (draw.skip_generator and self.options.skip_lam_loss):
            mask_k = self.mask(projected, draw.k, size, draw.seed)
            generation = []  # trains M, through k
            if not draw.skip_generator:
                generation.append(self.generation_loss(images, mask_k, labels, draw.k))
                metrics["loss_gen"] = generation[0].detach()
            loss.add(*generation, self.mask_loss(mask_k, draw.k.lam))
            metrics["mask_error"] = mask_error(mask_k, draw.k.lam)
        else:
            loss.add_idle(self.mix_block)
        metrics["mask_std"] = mask_std
        return StepOutput(loss.total(), metrics, x_q, mask_q, partners, draw.lam)

    @torch.no_grad()
    def mix(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> Mixed:
        """The samples that q sees: images and masks as in `step`."""
        draw, projected = draw.to(images.device), self.mix_block.project(self.mask_features(images))
        mask = self.mask_for_q(projected, draw, (images.shape[2], images.shape[3]))
        return Mixed(blend(*both(images, draw), mask), mask, draw.lam)

    @torch.no_grad()
    def mask_features(self, images: Tensor) -> Tensor:
        """The feature maps (N, C, h, w) that masks are made from: k's at layer l, or the Mix Block's own."""
        if hasattr(self.mix_block, "features"):
            return self.mix_block.features(images, self.info)
        return features(self.encoder_k, images, self.layer, whole=self.options.k_clean_pass == "whole")

    def mask(self, projected: Any, pairs: PairDraw, size: tuple[int, int], seed: int) -> Tensor:
        """s_i (n, 1, H, W) of n pairs of the batch; what a Mix Block draws on the CPU comes from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.mix_block.pair_mask(*both(projected, pairs), pairs.lam, size)

    def mask_for_q(self, projected: Any, draw: AutoMixDraw, size: tuple[int, int]) -> Tensor:
        """`mask`, but flat, which is MixUp, where λ_q is within ``small_lam`` of 0 or 1."""
        mask = self.mask(projected, draw, size, draw.seed)
        small = min(draw.lam, 1 - draw.lam) <= self.options.small_lam
        return torch.full_like(mask, draw.lam) if small else mask

    def classification(
        self, images: Tensor, mixed: Tensor, labels: Tensor, pairs: PairDraw
    ) -> Iterator[tuple[str, Tensor]]:
        """q's terms of Eq. 8 by their names in the log, in the order of q's passes, one at a time."""
        for kind in self.options.q_order.split("_"):
            if kind == "mixed":
                yield "loss_mce", self.mixed_loss(mixed, labels, pairs)
            elif self.options.cross_entropy:
                yield "loss_ce", self.clean_loss(images, labels)

    def mixed_loss(self, mixed: Tensor, labels: Tensor, pairs: PairDraw) -> Tensor:
        """MCE of q (Eq. 2) on mixed images (N, 3, H, W)."""
        logits = classify_with(self.encoder_q, self.head_q, mixed)
        return pair_loss(logits, *both(labels, pairs), pairs.lam, self.options)

    def clean_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """CE of q (Eq. 1) on images (N, 3, H, W)."""
        return label_loss(self.encoder_q(images), labels, self.options)

    def generation_loss(self, images: Tensor, mask: Tensor, labels: Tensor, pairs: PairDraw) -> Tensor:
        """MCE of k (Eq. 2) on images (N, 3, H, W) mixed by masks (n, 1, H, W)."""
        logits = classify_with(self.encoder_k, self.head_k, blend(*both(images, pairs), mask))
        return pair_loss(logits, *both(labels, pairs), pairs.lam, self.options)

    def mask_loss(self, mask: Tensor, lam: float) -> Tensor:
        """ℓ_λ (Eq. 7) with γ as of now, the penalty for flat masks, and the reward for variance."""
        options = self.options
        gamma = options.lam_loss_weight * gamma_at(self.progress, self.steps, options.lam_loss_schedule)
        loss = lam_loss(mask, lam, gamma, options.lam_loss_margin, options.lam_loss_over)
        if options.mask_std_floor:
            loss = loss + flat_mask_loss(mask, lam, options.mask_std_floor)
        if options.mask_variance_weight:
            scale = gamma if options.mask_variance_schedule == "gamma" else 1.0
            over = (1, 2, 3) if options.lam_loss_over == "mask" else (0, 1, 2, 3)
            variance = mask.var(dim=over, unbiased=False).mean()
            loss = loss - options.mask_variance_weight * scale * variance
        return loss

    @torch.no_grad()
    def mask_std(self, projected: Any, draw: AutoMixDraw, z: Tensor) -> Tensor:
        """Mean spatial standard deviation of a few masks at λ = 0.5 over the cells of z (N, C, h, w).

        It is 0 for the trivial solution of Fig. 6.
        """
        some = PairDraw(0.5, draw.permutation[:LIVELINESS_PAIRS])
        mask = self.mask(projected, some, (z.shape[2], z.shape[3]), draw.seed)
        return mask.flatten(1).std(dim=1, unbiased=False).mean()

    @property
    def learns(self) -> bool:
        """Whether the Mix Block has weights that are trained."""
        return any(p.requires_grad for p in self.mix_block.parameters())

    def after_step(self, progress: float) -> None:
        """Eq. 12 with the m of now, and how far the schedules of m and γ are."""
        options = self.options
        at = self.progress if options.momentum_curve == "whole" else progress  # the step's start, or its end
        m = momentum_at(
            at, options.momentum, options.momentum_end, options.momentum_hold, options.momentum_curve
        )
        self.progress, self.steps = progress, self.steps + 1
        if options.momentum_warmup:
            m = warmed_up(m, self.steps)
        momentum_update(self.encoder_k, self.encoder_q, m, options.k_buffers)
        if self.head_q is not None and self.head_k is not None:
            momentum_update(self.head_k, self.head_q, m)

    def encoders(self) -> dict[str, nn.Module]:
        return {"k": self.encoder_k, "q": self.encoder_q}

    def parameter_groups(self) -> Iterable[dict]:
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        classifier = [(n, p) for n, p in named if not n.startswith("mix_block.")]
        generator = [(n, p) for n, p in named if n.startswith("mix_block.")]
        yield {"params": classifier, "lr_scale": 1.0, "lr_end": None, "weight_decay": None, "momentum": None}
        if generator:
            yield {
                "params": generator,
                "lr_scale": self.options.mix_block_lr_scale,
                "lr_end": self.options.mix_block_lr_end,
                "weight_decay": self.options.mix_block_weight_decay,
                "momentum": self.options.mix_block_momentum,
            }

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder_k.train(mode and self.options.k_mode == "train")
        return self

    def get_extra_state(self) -> dict[str, float | int]:
        return {"progress": self.progress, "steps": self.steps}

    def set_extra_state(self, state: dict[str, float | int]) -> None:
        self.progress, self.steps = float(state["progress"]), int(state["steps"])


def build_mix_block(channels: int, options: AutoMixOptions) -> nn.Module:
    """The Mix Block that the options describe, for feature maps of ``channels`` channels."""
    if options.mask == "random_grids":
        return RandomGrids()
    if options.mix_block_weights:
        return TrainedMixBlock(options.mix_block_weights)
    return MixBlock(channels, options)


def both(batch: Any, pairs: PairDraw) -> tuple[Any, Any]:
    """x_i and x_j of n pairs, from images, labels or features of the batch; x_i are its first n."""
    return batch[: len(pairs.permutation)], batch[pairs.permutation]


def mask_error(mask: Tensor, lam: float) -> Tensor:
    """Mean distance of the means of masks (N, 1, H, W) from λ, for the log."""
    return (mask.detach().mean(dim=(1, 2, 3)) - lam).abs().mean()
