"""The corruptions of CIFAR-C and ImageNet-C (Hendrycks and Dietterich, 2019): 15, and 4 for validation.

`corrupt` applies one of them at one of five severities to a batch. Every random number derives from (seed,
name, severity, index of the image), so an image's corruption does not depend on its batch. The names can be
read without what makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from automix_transfer.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEVERITIES = (1, 2, 3, 4, 5)
#: the 15 of the benchmark; the other 4 are its validation set, and part of the paper's 19
STANDARD = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
NAMES = (*STANDARD, "speckle_noise", "gaussian_blur", "spatter", "saturate")


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, indices: Sequence[int], seed: int = 0
) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) uint8, of ``indices`` (N,), under corruption ``name`` at ``severity`` 1 to 5.

    Raises:
        UserError: an unknown corruption or severity.
    """
    import numpy as np

    from automix_transfer.evaluation.corruptions.parameters import CORRUPTIONS, SMALL
    from automix_transfer.rng import derive_seed

    check(name, severity)
    function, small, large = CORRUPTIONS[name]
    parameters = (small if max(images.shape[1:3]) <= SMALL else large)[severity - 1]
    rngs = [
        np.random.Generator(np.random.SFC64(derive_seed(seed, f"corruption {name}", severity, int(index))))
        for index in indices
    ]
    corrupted = function(images / 255.0, parameters, rngs)
    return (np.clip(corrupted, 0, 1) * 255).astype(np.uint8)  # truncated, as the published files are


def check(name: str, severity: int) -> None:
    """Raise a `UserError` unless there is such a corruption and such a severity."""
    if name not in NAMES:
        raise UserError(f"corruption '{name}' is unknown; choose from {', '.join(NAMES)}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} is unknown; choose from 1 to 5")
