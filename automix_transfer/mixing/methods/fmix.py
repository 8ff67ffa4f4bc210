"""FMix (Harris et al., 2020): masks of any shape, cut from noise whose spectrum falls with the frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix_transfer.mixing.checks import check_choice, check_range
from automix_transfer.mixing.pairs import (
    MixDraw,
    Mixed,
    PairMethod,
    PairOptions,
    draw_mix,
    partners_of,
    paste,
)

SPECTRA = ("paper", "released")


@dataclass
class FMixOptions(PairOptions):
    """``decay`` δ: amplitudes fall as 1 / frequency^δ. ``spectrum``: ``paper``; or ``released``, whose code
    takes its real and imaginary parts from two rows of the frequency axis, so that masks are bands (kept
    because the published numbers may come from it)."""

    decay: float = 3.0
    spectrum: str = "paper"


@dataclass(frozen=True)
class FMixDraw(MixDraw):
    """The noise (H, W//2 + 1, 2), and whether λ·H·W pixels are rounded up."""

    noise: Tensor
    up: bool


def draw_fmix(
    count: int,
    size: tuple[int, int],
    options: FMixOptions,
    rng: torch.Generator | None,
    lam: float | None = None,
) -> FMixDraw:
    """One λ, one noise and one coin for the batch."""
    pairs = draw_mix(count, options, rng, lam)
    noise = torch.randn(size[0], size[1] // 2 + 1, 2, generator=rng, dtype=torch.float64)
    return FMixDraw(
        pairs.lam, pairs.permutation, pairs.apply, noise, bool(torch.rand((), generator=rng) < 0.5)
    )


def fmix_mask(
    noise: Tensor, size: tuple[int, int], lam: float, up: bool, decay: float = 3.0, spectrum: str = "paper"
) -> Tensor:
    """A mask (H, W) of zeros and ones with exactly floor or ceil of λ·H·W ones: the highest pixels of
    low-pass noise.

    On the CPU in float64: a batch has one mask, and an equal draw must give an equal mask on every device.
    """
    height, width = size
    fy = torch.fft.fftfreq(height, dtype=torch.float64).view(-1, 1)
    fx = torch.fft.rfftfreq(width, dtype=torch.float64).view(1, -1)
    frequency = torch.sqrt(fx**2 + fy**2).clamp(min=1 / max(height, width))
    amplitudes = noise / frequency.unsqueeze(-1) ** decay
    if spectrum == "paper":
        field = torch.fft.irfft2(torch.view_as_complex(amplitudes), s=size)
    else:
        field = torch.fft.irfft2(torch.complex(amplitudes[0], amplitudes[min(1, height - 1)]), s=size)
    wanted = lam * height * width
    ones = min(max(math.ceil(wanted) if up else math.floor(wanted), 0), height * width)
    mask = torch.zeros(height * width)
    mask[field.flatten().argsort(descending=True, stable=True)[:ones]] = 1
    return mask.view(height, width)


def apply_fmix(images: Tensor, draw: FMixDraw, options: FMixOptions) -> Mixed:
    """Image i (N, C, H, W) where the mask is 1, its partner elsewhere; label: the λ that was drawn."""
    size = (images.shape[2], images.shape[3])
    mask = fmix_mask(draw.noise, size, draw.lam, draw.up, options.decay, options.spectrum).to(
        images.device, images.dtype
    )
    masks = mask.expand(len(images), 1, *size)
    return Mixed(paste(images, partners_of(images, draw), masks), masks, draw.lam)


class FMix(PairMethod):
    """Eq. 2 on images cut along random contours. One mask a batch."""

    options: FMixOptions

    def __init__(self, encoder: nn.Module, options: FMixOptions | None = None) -> None:
        options = options or FMixOptions()
        super().__init__(encoder, options)
        check_range("decay", options.decay, 0, 100)
        check_choice("spectrum", options.spectrum, SPECTRA)

    def draw(
        self, count: int, size: tuple[int, int], rng: torch.Generator | None = None, lam: float | None = None
    ) -> FMixDraw:
        return draw_fmix(count, size, self.options, rng, lam)

    def apply_draw(self, images: Tensor, labels: Tensor, draw: FMixDraw) -> Mixed:
        return apply_fmix(images, draw, self.options)
