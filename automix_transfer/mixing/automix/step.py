"""AutoMix: mixed sample generation and mixup classification trained together (Eq. 8, Algorithm 1, appendix
A.4).

One step, with q the student, k its moving average and M the Mix Block:

    z       = k(x) up to layer l                          no gradient                      0.8 passes
    x_q     = M(z, λ_q, π_q)                              no gradient: q's losses must not reach M
    x_k     = M(z, λ_k, π_k)                              gradient to M only
    loss    = MCE(q(x_q), λ_q) + CE(q(x))                 classification: trains q         3 + 3
            + MCE(k(x_k), λ_k) + ℓ_λ(mask_k, λ_k)         generation: trains M through k   2
    update q and M;  k ← m·k + (1-m)·q                    Eq. 12

Passes count forward, weight gradient and input gradient as one each: 8.8 where a vanilla step has 3. The
terms of the loss share no activations, so each one's graph is freed before the next is built: the memory of
one pass of q, not of three (see `FreedLoss`). Options trade passes for exactness; `AutoMixOptions` names what
each saves, and the preset ``fast`` combines some.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.mixing.automix.mix_block import MixBlock, Projected, RandomGrids, mix
from automix_transfer.mixing.automix.momentum import momentum_at, momentum_update, warmed_up
from automix_transfer.mixing.automix.offline import TrainedMixBlock
from automix_transfer.mixing.automix.options import AutoMixOptions, check_encoder, check_options
from automix_transfer.mixing.automix.partial import part_of, shrunk
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.draw import AutoMixDraw, PairDraw, draw_pairs
from automix_transfer.mixing.heads import classify_with, copy_head, find_classifier
from automix_transfer.mixing.losses import check_batch, flat_mask_loss, label_loss, lam_loss, pair_loss
from automix_transfer.mixing.parts.freed import FreedLoss
from automix_transfer.models.encoders import EncoderInfo, feature_layer
from automix_transfer.models.taps import feature_channels, features, tapped

LIVELINESS_PAIRS = 16  #: pairs a step whose mask at λ = 0.5 is looked at for the log


class AutoMix(Method):
    """AutoMix around any encoder with a feature map at the chosen layer.

    Args:
        encoder: images (N, 3, H, W) to logits (N, K); it becomes q, and a copy of it k.
        options: `AutoMixOptions`; single ones may be given by name instead, e.g. ``AutoMix(encoder,
            feature_layer="layer3")``.

    Raises:
        UserError: an unknown option value, or a feature layer that does not exist or gives no feature map.
    """

    def __init__(self, encoder: nn.Module, options: AutoMixOptions | None = None, **overrides: Any) -> None:
        super().__init__()
        self.options = options = dataclasses.replace(options or AutoMixOptions(), **overrides)
        check_options(options)
        self.reads_layers = options.features_from == "q"
        if options.pipeline == "momentum" and options.k_mode == "train" and options.skip_generator:
            self.uneven_passes = f"skip_generator={options.skip_generator:g}"
        self.layer = feature_layer(encoder, options.feature_layer)
        self.encoder_q = encoder
        self.head_q = copy_head(encoder) if options.heads == "separate" else None
        if options.pipeline == "momentum":
            self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
            self.encoder_k.train(options.k_mode == "train")
            self.head_k = (
                copy.deepcopy(self.head_q).requires_grad_(False) if self.head_q is not None else None
            )
        channels = feature_channels(encoder, self.layer)
        self.trained = TrainedMixBlock(options.mix_block_weights) if options.mix_block_weights else None
        self.mix_block: nn.Module = (
            RandomGrids()
            if options.mask == "random_grids"
            else (self.trained.mix_block if self.trained is not None else MixBlock.of(channels, options))
        )
        self.progress, self.steps = 0.0, 0
        self.info: EncoderInfo | None = None

    def prepare(self, info: EncoderInfo) -> None:
        self.info = info
        check_encoder(self.options, self.encoder_q, self.layer, info.image_size)

    def forward(self, images: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> StepOutput:
        check_batch(images, labels)
        draw = self.draw(len(images), rng)
        return (
            self.joint_step(images, labels, draw)
            if self.options.pipeline == "joint"
            else self.momentum_step(images, labels, draw)
        )

    def draw(self, count: int, rng: torch.Generator | None = None) -> AutoMixDraw:
        """Everything random of one step."""
        q, k = draw_pairs(count, self.options.alpha, rng), draw_pairs(count, self.options.alpha, rng)
        coin = float(torch.rand((), generator=rng))
        return AutoMixDraw(
            q, k, coin < self.options.skip_generator, int(torch.randint(2**62, (), generator=rng))
        )

    def momentum_step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        """Eq. 8 by the momentum pipeline."""
        options, partners = self.options, draw.q.permutation
        draw = draw.to(images.device)
        loss = FreedLoss(self.parameters(), options.early_backward)
        metrics: dict[str, Tensor] = {}
        idle: list[nn.Module] = []  # what is trained, but not by this step
        clean = part_of(len(images), options.clean_share if options.cross_entropy else 0.0)
        if options.features_from == "q":
            with tapped(self.encoder_q, self.layer) as found:
                ce = label_loss(self.encoder_q(images), labels, options)
            z = found[0].detach()
            loss.add(ce)
        else:
            z = self.mask_features(images)
        generates = self.generates(draw)
        with torch.set_grad_enabled(generates and torch.is_grad_enabled()):
            source = self.mix_block.project(z) if isinstance(self.mix_block, MixBlock) else z
        with torch.no_grad():
            mask_q = self.mask(source, draw.q, images.shape[2:], draw.scores_seed)
            if min(draw.q.lam, 1 - draw.q.lam) <= options.small_lam:
                mask_q = torch.full_like(mask_q, draw.q.lam)
            mixed_q = mix(images, images[draw.q.permutation], mask_q)

        # the clean share takes the first images and this one the last, so that halves look at every image
        mce = self.mixed_loss(
            mixed_q[len(images) - part_of(len(images), options.mixed_share) :], labels, draw.q
        )
        metrics["loss_mce"] = mce.detach()
        loss.add(mce)
        if options.features_from == "q":
            metrics["loss_ce"] = ce.detach()
        elif clean:
            ce = label_loss(self.encoder_q(images[:clean]), labels[:clean], options)
            metrics["loss_ce"] = ce.detach()
            loss.add(ce)
        elif self.head_q is not None:
            idle.append(find_classifier(self.encoder_q))
        if generates and isinstance(source, Projected):
            gen, mask_k = self.generation_loss(images, labels, source, draw.k)
            metrics |= {"loss_gen": gen.detach(), "mask_error": mask_error(mask_k, draw.k.lam)}
            loss.add(gen, self.mask_loss(mask_k, draw.k.lam))
        elif any(p.requires_grad for p in self.mix_block.parameters()):
            idle.append(self.mix_block)
        metrics["mask_std"] = self.liveliness(source, draw.q)
        total = sum((unused(module) for module in idle), loss.total())
        return StepOutput(total, metrics, mixed=mixed_q, mask=mask_q, permutation=partners, lam=draw.q.lam)

    def joint_step(self, images: Tensor, labels: Tensor, draw: AutoMixDraw) -> StepOutput:
        """Table 10 without the momentum pipeline: one encoder, one draw, and the classifier's gradient
        reaches the Mix Block (Eq. 9)."""
        partners, pairs = draw.q.permutation, draw.q.to(images.device)
        z = features(self.encoder_q, images, self.layer)
        source = self.mix_block.project(z) if isinstance(self.mix_block, MixBlock) else z
        mask = self.mask(source, pairs, images.shape[2:], draw.scores_seed)
        mixed = mix(images, images[pairs.permutation], mask)
        loss = mce = self.mixed_loss(mixed, labels, pairs)
        metrics = {"loss_mce": mce.detach()}
        if self.options.cross_entropy:
            ce = label_loss(self.encoder_q(images), labels, self.options)
            loss, metrics["loss_ce"] = loss + ce, ce.detach()
        elif self.head_q is not None:
            loss = loss + unused(find_classifier(self.encoder_q))
        loss = loss + self.mask_loss(mask, pairs.lam)
        metrics |= {"mask_error": mask_error(mask, pairs.lam), "mask_std": self.liveliness(source, pairs)}
        return StepOutput(
            loss, metrics, mixed=mixed.detach(), mask=mask.detach(), permutation=partners, lam=pairs.lam
        )

    def generates(self, draw: AutoMixDraw) -> bool:
        """Whether the Mix Block learns in this step; drawn from the step's number, so that a resumed run goes
        on as it would have."""
        learns = self.options.mask == "mix_block" and self.trained is None
        return learns and not draw.skip_generator and self.steps % self.options.generator_every == 0

    @torch.no_grad()
    def mask_features(self, images: Tensor) -> Tensor:
        """The feature maps (N, C, h, w) of images (N, 3, H, W) that masks are made from, with the network
        that the options name."""
        if self.trained is not None:
            return self.trained.features(shrunk(images, self.options.features_scale), self.info)
        from_k = self.options.pipeline == "momentum" and self.options.features_from == "k"
        return features(
            self.encoder_k if from_k else self.encoder_q,
            shrunk(images, self.options.features_scale),
            self.layer,
        )

    def mixed_loss(self, mixed: Tensor, labels: Tensor, pairs: PairDraw) -> Tensor:
        """ℓ_MCE^cls of Eq. 8: q on mixed images (n, 3, H, W), the last n of the batch that ``labels`` (N,)
        and ``pairs`` are of."""
        first = len(labels) - len(mixed)
        logits = classify_with(self.encoder_q, self.head_q, mixed)
        return pair_loss(logits, labels[first:], labels[pairs.permutation][first:], pairs.lam, self.options)

    def generation_loss(
        self, images: Tensor, labels: Tensor, source: Projected, pairs: PairDraw
    ) -> tuple[Tensor, Tensor]:
        """ℓ_MCE^gen of Eq. 8: k on images mixed by masks (n, 1, H, W) that are returned too, and that alone
        have a gradient."""
        images = shrunk(images, self.options.generator_scale)
        count = part_of(len(images), self.options.generator_share)
        pairs = dataclasses.replace(pairs, permutation=pairs.permutation[:count])
        mask = self.mask(source, pairs, images.shape[2:])
        mixed = mix(images[:count], images[pairs.permutation], mask)
        logits = classify_with(self.encoder_k, self.head_k, mixed)
        return pair_loss(logits, labels[:count], labels[pairs.permutation], pairs.lam, self.options), mask

    def mask(
        self, z: Tensor | Projected, pairs: PairDraw, size: torch.Size | tuple[int, ...], scores_seed: int = 0
    ) -> Tensor:
        """s_i (n, 1, H, W) for the first n images and their partners, from the feature maps z (N, C, h, w) of
        the batch, which may be projected already; n is the number of partners."""
        count, partners = len(pairs.permutation), pairs.permutation
        height_width = (int(size[0]), int(size[1]))
        if isinstance(self.mix_block, RandomGrids):
            assert isinstance(z, Tensor)
            scores = torch.rand(
                count, z.shape[2] * z.shape[3], generator=torch.Generator().manual_seed(scores_seed)
            )
            return self.mix_block(z[:count], z[:count], pairs.lam, height_width, scores)
        assert isinstance(self.mix_block, MixBlock)
        if isinstance(z, Tensor):
            partners = partners.to(z.device, non_blocking=True)
            z = self.mix_block.project(z)
        return self.mix_block.pair_mask(z[:count], z[partners], pairs.lam, height_width)

    def mask_loss(self, mask: Tensor, lam: float) -> Tensor:
        """ℓ_λ of Eq. 7 with γ as of now, and the optional reward for variance."""
        options, left = self.options, 1 - self.progress
        factor = {"linear": left, "cosine": (1 + math.cos(math.pi * self.progress)) / 2, "constant": 1.0}[
            options.lam_loss_schedule
        ]
        loss = lam_loss(
            mask, lam, options.lam_loss_weight * factor, options.lam_loss_margin, options.lam_loss_over
        )
        if options.mask_std_floor:
            loss = loss + options.mask_std_weight * flat_mask_loss(mask, lam, options.mask_std_floor)
        if options.mask_variance_weight:
            loss = loss - options.mask_variance_weight * mask.var(dim=(1, 2, 3), unbiased=False).mean()
        return loss

    @torch.no_grad()
    def liveliness(self, z: Tensor | Projected, pairs: PairDraw) -> Tensor:
        """Mean spatial standard deviation of a few masks at λ = 0.5; 0 is the trivial solution of Fig. 6."""
        if isinstance(z, Tensor):
            return z.new_full((), 0.5)  # random grids: half the cells are 1, half 0
        some = PairDraw(0.5, pairs.permutation[:LIVELINESS_PAIRS])
        return self.mask(z, some, z.value.shape[2:]).flatten(1).std(dim=1, unbiased=False).mean()

    def after_step(self, progress: float) -> None:
        self.progress, self.steps = progress, self.steps + 1
        if self.options.pipeline == "joint":
            return
        m = momentum_at(
            progress, self.options.momentum, self.options.momentum_end, self.options.momentum_hold
        )
        if self.options.momentum_warmup:
            m = warmed_up(m, self.steps)
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
            yield {
                "params": generator,
                "lr_scale": self.options.mix_block_lr_scale,
                "lr_end": self.options.mix_block_lr_end,
                "weight_decay": self.options.mix_block_weight_decay,
            }

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
    """A zero that depends on every parameter of ``module``: DDP waits for the gradient of each, in every
    step."""
    return 0 * torch.stack([p.sum() for p in module.parameters()]).sum()


def mask_error(mask: Tensor, lam: float) -> Tensor:
    """Mean distance of the means of masks (N, 1, H, W) from λ, for the log."""
    return (mask.detach().mean(dim=(1, 2, 3)) - lam).abs().mean()
