"""Every choice that AutoMix leaves open, with its range; the defaults are the preset `robust`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.momentum import BUFFERS
from automix_transfer.mixing.checks import between, check, one_of, positive
from automix_transfer.mixing.losses import LossOptions

PRESETS = Path(__file__).parent / "presets"

#: presets of version 0.1 -> their names since
RENAMED_PRESETS = {"paper": "robust"}

#: the options of `FastAutoMix`; each is 1 in the paper
APPROXIMATIONS = ("mixed_share", "clean_share", "generator_share", "features_scale")

#: options of version 0.1 that are gone -> the values at which they changed nothing
REMOVED: dict[str, tuple[Any, ...]] = {
    "mask_std_weight": (1.0,),
    "generator_every": (1,),
    "generator_scale": (1.0,),
    "features_from": ("k",),
    "early_backward": (True, False),
}


@dataclass
class AutoMixOptions(LossOptions):
    """Options of `AutoMix`, besides those of the loss; ``method.*`` in a recipe."""

    preset: str = (
        "robust"  # the file in presets/ that the values came from (`read_options`), see docs/automix.md
    )
    alpha: float = positive(2.0)  # λ ~ Beta(α, α), section 4.1
    # x_j of a batch: any permutation of it, or one without fixed points (the published code for CUB, Aircraft
    # and Cars), so that no image is its own partner
    partners: str = one_of("permutation", "permutation", "derangement")
    # l of Eq. 4: 1 to 4 (the last four stages, Table 11), a submodule's name, or auto: 3, see feature_layer
    feature_layer: str = "auto"

    # The Mix Block (Eqs. 4 to 6)
    mask: str = one_of("mix_block", "mix_block", "random_grids")  # random_grids: Table 9's first row
    # concatenate λ to z_i and 1-λ to z_j as a constant channel (section 3.1; off in Table 9's second row)
    lam_embedding: bool = True
    # pair: the value is W_Z z_j and s_i = 1 - s_j (the end of section 3.1, and the code that made the paper's
    # numbers); own: it is W_Z z_i as Eq. 5 is printed, which pairs the weight of position q of j with the
    # value at position q of i
    value: str = one_of("pair", "pair", "own")
    # U(σ(·)) as in Eq. 5, or σ(U(·)) as in the published code; equal for nearest upsampling
    order: str = one_of("sigmoid_upsample", "sigmoid_upsample", "upsample_sigmoid")
    upsampling: str = one_of("nearest", "nearest", "bilinear")  # U of Eq. 5
    # standard deviation of W_Z's first weights for the features; near 0 the first masks are nearly flat
    init_std: float = between(0.01)
    # the first weight of W_Z for λ, balanced by its bias at λ = 0.5: with 4 the first masks have means of
    # 0.12 to 0.88 for λ from 0 to 1; with 0 (the published code) all have 0.5, and labels do not match images
    lam_slope: float = 4.0
    # standard deviation of W_P's first weights. Near 0 (the published code: 0.01) every row of P is uniform
    # and every mask flat, and the gradient that could change it vanishes with W_P: the saddle of Fig. 6's
    # trivial solution. With 1, contents are compared from the first step.
    similarity_std: float = between(1.0)
    # give each feature map a spatial mean of 0 and vectors of length 1 (root mean square) before λ is
    # appended: λ and the bias then make the mask's mean and the features its shape, whatever the size of the
    # encoder's features; without it masks saturate at 0 or 1
    normalize: bool = True
    small_lam: float = between(0.0, 0, 1)  # where λ_q is within this of 0 or 1, q's sample is plain MixUp

    # The losses (Eqs. 7 and 8)
    cross_entropy: bool = True  # q's CE on clean images (Table 10: + CE)
    lam_loss_weight: float = between(0.1)  # γ of Eq. 7 at the start (Table 9: + ℓ_λ; 0 switches it off)
    lam_loss_margin: float = between(0.1, 0, 1)  # ε of Eq. 7
    # how γ falls to 0, or does not; compounding: each step multiplies it by the cosine's share, so that it is
    # half after 1.2 % of 500,400 steps (the published code but for CIFAR and Tiny-ImageNet, see gamma_at)
    lam_loss_schedule: str = one_of("linear", "linear", "cosine", "constant", "compounding")
    # the mean of Eq. 7, and the variance below, are over one mask or the batch
    lam_loss_over: str = one_of("mask", "mask", "batch")
    # penalise masks whose spatial standard deviation at λ = 0.5 would be below it; 0: no penalty
    mask_std_floor: float = between(0.2, 0, 1)
    # adds -weight · Var(mask); the published code has 2 for RX-50 on CUB and Aircraft
    mask_variance_weight: float = between(0.0)
    # gamma: the weight is times γ and falls with it (the published code)
    mask_variance_schedule: str = one_of("constant", "constant", "gamma")
    # share of steps without the generation loss (the published code: 0.2 for ViTs)
    skip_generator: float = between(0.0, 0, 1)
    skip_lam_loss: bool = True  # these steps are without ℓ_λ too (the published code: only without the MCE)
    heads: str = one_of("shared", "shared", "separate")  # one classifier for clean and mixed images, or two
    # standard deviation of the classifiers' first weights, drawn for each, with biases of 0 (the published
    # code: 0.01); None: the encoder's own, and a copy of it
    head_std: float | None = between(None)
    # which of q's passes comes first, and is forgotten first by BatchNorm's running statistics;
    # clean_mixed: Algorithm 1 and the published code
    q_order: str = one_of("mixed_clean", "mixed_clean", "clean_mixed")

    # The momentum pipeline (Eqs. 10 to 12)
    pipeline: str = one_of("momentum", "momentum", "joint")  # joint: Table 10's first row, see JointAutoMix
    momentum: float = between(0.999, 0, 1)  # m at the start
    # m at the end of a half cosine; momentum = momentum_end = 0 is Table 10's m = 0
    momentum_end: float = between(1.0, 0, 1)
    momentum_hold: float = between(0.0, 0, 1)  # share of the training in which m stays at its start
    # the cosine spans what is left after the hold, or the whole training (the published code, which reads it
    # where a step begins and not where it ends)
    momentum_curve: str = one_of("after_hold", "after_hold", "whole")
    momentum_warmup: bool = True  # m ← min(m, t/(t + 9)) after t steps, see warmed_up
    k_buffers: str = one_of("ema", *BUFFERS)  # BatchNorm statistics of k, see momentum_update
    # k's BatchNorm uses its running statistics, or in train (the published code, with own) the batch's
    k_mode: str = one_of("eval", "train", "eval")
    # k on clean images stops at layer l, or runs to its end (the published code: 9 passes a step instead of
    # 8.8), which in train mode shows clean images to BatchNorm behind layer l too
    k_clean_pass: str = one_of("to_layer", "to_layer", "whole")

    # The Mix Block's optimizer
    mix_block_lr_scale: float = between(1.0)  # times the run's learning rate
    # times mix_block_lr_scale · the run's rate at the end; None: as the run's schedule
    mix_block_lr_end: float | None = between(None)
    mix_block_weight_decay: float | None = 0.0  # None: the run's; decay pulls W_P to flat masks
    mix_block_momentum: float | None = between(None, 0, 1)  # of SGD; None: the run's

    # an AutoMix checkpoint whose Mix Block and encoder make the masks, frozen; see TrainedMixBlock
    mix_block_weights: str = ""

    # Approximations (FastAutoMix): passes saved, of 8.8 a step where a vanilla step has 3
    mixed_share: float = between(1.0, 0, 1, low_open=True)  # of mixed images that q learns from: 3 → 3·share
    clean_share: float = between(1.0, 0, 1)  # of clean images that q learns from: 3 → 3·share
    generator_share: float = between(1.0, 0, 1, low_open=True)  # of pairs that M learns from: 2 → 2·share
    # masks are made from images of this share of the side, in as many fewer cells: 0.8 → 0.8·scale²
    features_scale: float = between(1.0, 0, 1, low_open=True)

    def asks_for(self) -> tuple[str, str]:
        """The class that these options are of, and the option that asks for it."""
        if self.pipeline == "joint":
            return "JointAutoMix", "pipeline"
        altered = self.approximations()
        return ("FastAutoMix", altered[0]) if altered else ("AutoMix", "")

    def approximations(self) -> list[str]:
        """Those of `APPROXIMATIONS` that are not the paper's."""
        return [key for key in APPROXIMATIONS if getattr(self, key) != 1]


def read_options(values: Mapping[str, Any]) -> AutoMixOptions:
    """The options of ``values["preset"]``, with ``values`` over them.

    Raises:
        UserError: an unknown preset or option, or a value of the wrong type.
    """
    values = {key: value for key, value in values.items() if not is_removed(key, value)}
    preset = str(values.get("preset", AutoMixOptions.preset))
    preset = values["preset"] = RENAMED_PRESETS.get(preset, preset)
    file = PRESETS / f"{preset}.yaml"
    if "/" in preset or not file.is_file():
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise UserError(f"method.preset '{preset}' is unknown; choose one of {known}")
    return load_config(AutoMixOptions, [file], values=values, section="method")


def check_options(options: AutoMixOptions) -> None:
    """Refuse values out of range and options that exclude each other; a `UserError` names the keys."""
    check(options)
    if options == AutoMixOptions(preset=options.preset) and options.preset not in (
        "robust",
        *RENAMED_PRESETS,
    ):
        raise UserError(
            f"method.preset={options.preset} is only named, its values are not read; use AutoMix(encoder, "
            f"preset='{options.preset}') or load_options"
        )
    if options.heads == "separate" and not (options.cross_entropy and options.clean_share):
        without = "clean_share=0" if options.cross_entropy else "cross_entropy=false"
        raise UserError(
            f"method.{without} with method.heads=separate leaves the classifier for clean images, which is "
            "evaluated, untrained; set method.heads=shared"
        )
    if options.pipeline == "momentum" and (options.k_buffers, options.k_mode) == ("own", "eval"):
        raise UserError(
            "method.k_buffers=own and method.k_mode=eval leave k's BatchNorm statistics as they began; set "
            "method.k_mode=train, or method.k_buffers=ema or copy"
        )
    altered = options.approximations() + ["mix_block_weights"] * bool(options.mix_block_weights)
    if altered and options.pipeline == "joint":
        raise UserError(f"method.{altered[0]} needs the momentum pipeline; set method.pipeline=momentum")
    if options.mix_block_weights and options.mask != "mix_block":
        raise UserError("method.mix_block_weights brings a Mix Block; leave method.mask=mix_block")


def is_removed(key: str, value: Any) -> bool:
    """Whether ``key`` is an option of version 0.1 that is gone, at a value at which it changed nothing."""
    return value in REMOVED.get(key, ())
