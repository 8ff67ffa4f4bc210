"""Every choice that AutoMix leaves open, named. Defaults are the paper's; the published code's are the preset ``openmixup``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from automix_transfer.mixing.losses import LossOptions

PRESETS = Path(__file__).parent / "presets"


@dataclass
class AutoMixOptions(LossOptions):
    """Options of `AutoMix`, besides those of the loss; ``method.*`` in a recipe."""

    preset: str = "paper"  # values to start from: paper or openmixup (the two files in mixing/presets)
    alpha: float = 2.0  # λ ~ Beta(α, α), section 4.1
    feature_layer: str = "auto"  # l of Eq. 4: 1 to 4 (the last four stages, Table 11), a submodule's name, or auto: 3, see feature_layer

    # The mask (Eqs. 4-6)
    mask: str = "mix_block"  # mix_block, or random_grids: Table 9's first row
    lam_embedding: bool = True  # λ as an extra channel (Table 9: + λ embedding)
    value: str = "pair"  # Eq. 5's value: pair (s_j from z_j, s_i = 1 - s_j) or own (as printed); see MixBlock
    order: str = "sigmoid_upsample"  # U(σ(·)) as in Eq. 5, or upsample_sigmoid
    upsampling: str = "nearest"  # or bilinear
    init_std: float = 0.01  # of W_Z
    lam_slope: float = 4.0  # of W_Z for λ: the first masks follow λ; 0 as published: they are 0.5
    similarity_std: float = 1.0  # of W_P; 0.01 as published starts at the trivial solution's saddle, see MixBlock
    normalize: bool = True  # features of spatial mean 0 and length 1 before the Mix Block
    small_lam: float = 0.0  # where λ_q is within this of 0 or 1, q's sample is plain MixUp

    # The losses (Eqs. 7 and 8)
    cross_entropy: bool = True  # q's CE on clean images (Table 10: + CE)
    lam_loss_weight: float = 0.1  # γ of Eq. 7 at the start (Table 9: + ℓ_λ; 0 switches it off)
    lam_loss_margin: float = 0.1  # ε of Eq. 7
    lam_loss_schedule: str = "linear"  # how γ falls to 0: linear or cosine; or constant
    lam_loss_over: str = "mask"  # the mean of Eq. 7 over one mask, or over the batch
    mask_std_floor: float = 0.2  # keeps masks alive: a penalty where the spatial standard deviation at λ = 0.5 would be below it; 0: none
    mask_std_weight: float = 1.0  # of that penalty
    mask_variance_weight: float = 0.0  # adds -weight · Var(mask); the published code has 2 for RX-50 on CUB and Aircraft
    skip_generator: float = 0.0  # share of steps without the generator's MCE (the published code: 0.2 for ViTs)
    heads: str = "shared"  # one classifier for clean and mixed images, or separate

    # The momentum pipeline (Eqs. 10-12)
    pipeline: str = "momentum"  # or joint: one encoder, gradients entangled (Table 10's first row)
    momentum: float = 0.999  # m at the start
    momentum_end: float = 1.0  # m at the end of a half cosine; momentum = momentum_end = 0 is Table 10's m = 0
    momentum_hold: float = 0.0  # share of the training before the cosine starts
    momentum_warmup: bool = True  # m ← min(m, t/(t + 9)) after t steps, so that k is never older than a tenth of the training
    k_buffers: str = "ema"  # BatchNorm statistics of k: ema (as Eq. 12), own or copy; see momentum_update
    k_mode: str = "eval"  # k's BatchNorm uses its running statistics, or in train (the published code, with own) the batch's

    # The Mix Block's optimizer
    mix_block_lr_scale: float = 1.0  # times the run's learning rate
    mix_block_lr_end: float | None = None  # times mix_block_lr_scale · the run's rate at the end; None: as the run's schedule
    mix_block_weight_decay: float | None = 0.0  # None: as the run's; decay pulls W_P to the flat masks of the saddle
