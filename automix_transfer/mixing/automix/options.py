"""Every choice that AutoMix leaves open, named. Defaults are the paper's; the published code's are the preset
``openmixup``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.automix.momentum import BUFFERS
from automix_transfer.mixing.checks import check_choice, check_range
from automix_transfer.mixing.losses import LossOptions, check_loss
from automix_transfer.mixing.methods.mixup import check_alpha
from automix_transfer.models.taps import feature_grid

PRESETS = Path(__file__).parent / "presets"


@dataclass
class AutoMixOptions(LossOptions):
    """Options of `AutoMix`, besides those of the loss; ``method.*`` in a recipe."""

    preset: str = "paper"  # values to start from: paper, openmixup or fast (the files in mixing/presets)
    alpha: float = 2.0  # λ ~ Beta(α, α), section 4.1
    # l of Eq. 4: 1 to 4 (the last four stages, Table 11), a submodule's name, or auto: 3, see feature_layer
    feature_layer: str = "auto"

    # The mask (Eqs. 4-6)
    mask: str = "mix_block"  # mix_block, or random_grids: Table 9's first row
    lam_embedding: bool = True  # λ as an extra channel (Table 9: + λ embedding)
    value: str = "pair"  # Eq. 5's value: pair (s_j from z_j, s_i = 1 - s_j) or own (as printed); see MixBlock
    order: str = "sigmoid_upsample"  # U(σ(·)) as in Eq. 5, or upsample_sigmoid
    upsampling: str = "nearest"  # or bilinear
    init_std: float = 0.01  # of W_Z
    lam_slope: float = 4.0  # of W_Z for λ: the first masks follow λ; 0 as published: they are 0.5
    # of W_P; 0.01 as published starts at the trivial solution's saddle, see MixBlock
    similarity_std: float = 1.0
    normalize: bool = True  # features of spatial mean 0 and length 1 before the Mix Block
    small_lam: float = 0.0  # where λ_q is within this of 0 or 1, q's sample is plain MixUp

    # The losses (Eqs. 7 and 8)
    cross_entropy: bool = True  # q's CE on clean images (Table 10: + CE)
    lam_loss_weight: float = 0.1  # γ of Eq. 7 at the start (Table 9: + ℓ_λ; 0 switches it off)
    lam_loss_margin: float = 0.1  # ε of Eq. 7
    lam_loss_schedule: str = "linear"  # how γ falls to 0: linear or cosine; or constant
    lam_loss_over: str = "mask"  # the mean of Eq. 7 over one mask, or over the batch
    # keeps masks alive: a penalty where the spatial standard deviation at λ = 0.5 would be below it; 0: none
    mask_std_floor: float = 0.2
    mask_std_weight: float = 1.0  # of that penalty
    # adds -weight · Var(mask); the published code has 2 for RX-50 on CUB and Aircraft
    mask_variance_weight: float = 0.0
    # share of steps without the generator's MCE (the published code: 0.2 for ViTs)
    skip_generator: float = 0.0
    heads: str = "shared"  # one classifier for clean and mixed images, or separate

    # The momentum pipeline (Eqs. 10-12)
    pipeline: str = "momentum"  # or joint: one encoder, gradients entangled (Table 10's first row)
    momentum: float = 0.999  # m at the start
    # m at the end of a half cosine; momentum = momentum_end = 0 is Table 10's m = 0
    momentum_end: float = 1.0
    momentum_hold: float = 0.0  # share of the training before the cosine starts
    # m ← min(m, t/(t + 9)) after t steps, so that k is never older than a tenth of the training
    momentum_warmup: bool = True
    k_buffers: str = "ema"  # BatchNorm statistics of k: ema (as Eq. 12), own or copy; see momentum_update
    # k's BatchNorm uses its running statistics, or in train (the published code, with own) the batch's
    k_mode: str = "eval"

    # The Mix Block's optimizer
    mix_block_lr_scale: float = 1.0  # times the run's learning rate
    # times mix_block_lr_scale · the run's rate at the end; None: as the run's schedule
    mix_block_lr_end: float | None = None
    # None: as the run's; decay pulls W_P to the flat masks of the saddle
    mix_block_weight_decay: float | None = 0.0

    # Passes saved, of 8.8 (a vanilla step has 3). Defaults are the paper's; everything else is another
    # method, to be compared with it
    mixed_share: float = 1.0  # q's MCE on this share of the mixed images, the last ones: 3 → 3·share
    # q's CE on this share of the clean images: 3 → 3·share; 0: none (Table 10's "+MP" without "+CE")
    clean_share: float = 1.0
    generator_every: int = 1  # the Mix Block learns in every n-th step only: 2 → 2/n
    generator_share: float = 1.0  # it learns from this share of the batch's pairs: 2 → 2·share
    generator_scale: float = 1.0  # k classifies mixed images of this share of the side: 2 → 2·scale²
    # masks are made from images of this share of the side, so they have as many fewer cells: 0.8 → 0.8·scale²
    features_scale: float = 1.0
    features_from: str = "k"  # or q: the features of q's clean pass, detached; nothing is left of the 0.8
    # an AutoMix checkpoint whose Mix Block and encoder k make the masks, frozen: 2 → 0; see TrainedMixBlock
    mix_block_weights: str = ""

    # How it is computed, not what
    # free each term's activations before the next is built; False: all at once, DDP's communication overlaps
    early_backward: bool = True


CHOICES = {
    "mask": ("mix_block", "random_grids"),
    "lam_loss_schedule": ("linear", "cosine", "constant"),
    "lam_loss_over": ("mask", "batch"),
    "heads": ("shared", "separate"),
    "pipeline": ("momentum", "joint"),
    "k_buffers": BUFFERS,
    "k_mode": ("train", "eval"),
    "upsampling": ("nearest", "bilinear"),
    "features_from": ("k", "q"),
}


def check_options(options: AutoMixOptions) -> None:
    """Refuse values that mean nothing, and options that exclude each other, naming the keys and what they may
    be."""
    for key, choices in CHOICES.items():
        check_choice(key, getattr(options, key), choices)
    check_alpha(options.alpha)
    check_loss(options)
    for key in (
        "momentum",
        "momentum_end",
        "momentum_hold",
        "skip_generator",
        "small_lam",
        "lam_loss_margin",
        "mask_std_floor",
        "clean_share",
    ):
        check_range(key, getattr(options, key), 0, 1)
    for key in (
        "lam_loss_weight",
        "mask_variance_weight",
        "mask_std_weight",
        "mix_block_lr_scale",
        "init_std",
        "similarity_std",
    ):
        check_range(key, getattr(options, key))
    for key in ("mixed_share", "generator_share", "generator_scale", "features_scale"):
        if not 0 < getattr(options, key) <= 1:
            raise UserError(
                f"method.{key} is {getattr(options, key)}; it must be more than 0 and at most 1 (the paper)"
            )
    check_range("generator_every", options.generator_every, 1)
    if options.features_from == "q" and not (
        options.cross_entropy and options.clean_share == 1 and options.features_scale == 1
    ):
        raise UserError(
            "method.features_from=q takes the features of q's pass over all clean images at their full size; "
            "set "
            "method.cross_entropy=true, clean_share=1 and features_scale=1, or leave method.features_from=k"
        )
    if options.pipeline == "momentum" and (options.k_buffers, options.k_mode) == ("own", "eval"):
        raise UserError(
            "method.k_buffers=own leaves k's BatchNorm statistics to its own passes, and with "
            "method.k_mode=eval they would "
            "stay as they began; set method.k_mode=train, or method.k_buffers=ema or copy"
        )
    altered = [key for key, plain in PASSES.items() if getattr(options, key) != plain]
    if altered and options.pipeline == "joint":
        raise UserError(
            f"method.{altered[0]} is of the momentum pipeline; set method.pipeline=momentum, or leave it at "
            f"{PASSES[altered[0]]!r}"
        )
    if options.mix_block_weights and (options.mask != "mix_block" or options.features_from != "k"):
        raise UserError(
            "method.mix_block_weights brings a Mix Block and the network for its features; leave "
            "method.mask=mix_block and "
            "method.features_from=k, or leave method.mix_block_weights empty"
        )


#: the options that save passes, at the paper's values
PASSES = {
    "mixed_share": 1.0,
    "clean_share": 1.0,
    "generator_every": 1,
    "generator_share": 1.0,
    "generator_scale": 1.0,
    "features_scale": 1.0,
    "features_from": "k",
    "mix_block_weights": "",
}


def check_encoder(options: AutoMixOptions, encoder: nn.Module, layer: str, image_size: int) -> None:
    """Refuse smaller images where the encoder is built for one size, or where their feature map at ``layer``
    has a single cell.

    Raises:
        UserError: names the option, the encoder and what goes.
    """
    for key in ("features_scale", "generator_scale"):
        scale = getattr(options, key)
        if scale == 1:
            continue
        side = max(round(image_size * scale), 1)
        try:
            cells = feature_grid(encoder, layer, side)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"method.{key}={scale:g} gives images of {side} px, which {type(encoder).__name__} does not "
                "take (it is "
                f"built for {image_size} px); leave method.{key}=1, and save passes by "
                "method.generator_share or "
                "clean_share"
            ) from error
        if key == "features_scale" and min(cells) < 2:
            raise UserError(
                f"method.features_scale={scale:g} leaves masks of {cells[0]}x{cells[1]} cells at layer "
                f"'{layer}' for images of "
                f"{image_size} px; raise it, or choose an earlier method.feature_layer"
            )
