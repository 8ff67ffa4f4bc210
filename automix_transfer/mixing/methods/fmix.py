"""FMix (Harris et al., 2020): masks of any shape, cut from noise whose spectrum falls with the frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between, one_of
from automix_transfer.mixing.draw import PairDraw, Rng, Size
from automix_transfer.mixing.pairs import PairMethod, PairOptions, partners_of, paste


@dataclass
class FMixOptions(PairOptions):
    """``decay`` δ: amplitudes fall as 1 / frequency^δ. ``spectrum``: ``paper``; or ``released``, whose code
    takes its real and imaginary parts from two rows of the frequency axis, so that masks are bands (kept
    because the published numbers may come from it)."""

    decay: float = between(3.0, 0, 100)
    spectrum: str = one_of("paper", "paper", "released")


@dataclass(frozen=True)
class FMixDraw(PairDraw):
    """The noise (H, W//2 + 1, 2), and whether λ·H·W pixels are rounded up."""

    noise: Tensor
    up: bool


def fmix_mask(
    noise: Tensor, size: Size, lam: float, up: bool, decay: float = 3.0, spectrum: str = "paper"
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


class FMix(PairMethod):
    """Eq. 2 on images cut along random contours. One mask a batch; the label is the λ that was drawn."""

    options_class = FMixOptions

    def draw(self, count: int, size: Size, rng: Rng = None, lam: float | None = None) -> FMixDraw:
        pairs = super().draw(count, size, rng, lam)
        noise = torch.randn(size[0], size[1] // 2 + 1, 2, generator=rng, dtype=torch.float64)
        return FMixDraw(**vars(pairs), noise=noise, up=bool(torch.rand((), generator=rng) < 0.5))

    def mix(self, images: Tensor, labels: Tensor, draw: FMixDraw) -> Mixed:
        size, options = images.shape[2:], self.options
        mask = fmix_mask(draw.noise, size, draw.lam, draw.up, options.decay, options.spectrum)
        masks = mask.to(images.device, images.dtype, non_blocking=True).expand(len(images), 1, *size)
        return Mixed(paste(images, partners_of(images, draw), masks), masks, draw.lam)
