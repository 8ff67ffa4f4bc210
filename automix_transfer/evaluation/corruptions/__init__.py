"""The corruptions of CIFAR-C and ImageNet-C (Hendrycks and Dietterich, 2019), made here: 15, and 4 more for validation.

`corrupt` applies one of them at one of five severities to a batch. Every random number derives from (seed, name, severity, index of
the image), so an image's corruption does not depend on its batch. The parameters are the published ones for sides up to 64 pixels
(CIFAR) and above (ImageNet). One cannot be as published: frost is rendered instead of cut from photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import blur, digital, noise, weather
from automix_transfer.rng import derive_seed

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # sides up to this have CIFAR's parameters


def _steps(stop: float, step: float) -> list[float]:
    return np.arange(1, stop, step).tolist()


#: name -> (function, parameters of the five severities on CIFAR, on ImageNet)
CORRUPTIONS: dict[str, tuple[Callable[..., NDArray[np.float64]], Sequence[Any], Sequence[Any]]] = {
    "gaussian_noise": (noise.gaussian_noise, (.04, .06, .08, .09, .10), (.08, .12, .18, .26, .38)),
    "shot_noise": (noise.shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (noise.impulse_noise, (.01, .02, .03, .05, .07), (.03, .06, .09, .17, .27)),
    "defocus_blur": (blur.defocus_blur, ((.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)), ((3, .1), (4, .5), (6, .5), (8, .5), (10, .5))),
    "glass_blur": (blur.glass_blur, ((.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2)),
                   ((.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (blur.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (blur.zoom_blur, [_steps(stop, .01) for stop in (1.06, 1.11, 1.16, 1.21, 1.26)],
                  [_steps(stop, step) for stop, step in ((1.11, .01), (1.16, .01), (1.21, .02), (1.26, .02), (1.31, .03))]),
    "snow": (weather.snow, ((.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),
                            (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8)),
             ((.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7), (.55, .3, 4, .9, 12, 8, .7), (.55, .3, 4.5, .85, 12, 8, .65),
              (.55, .3, 2.5, .85, 12, 12, .55))),
    "frost": (weather.frost, ((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45)), ((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75))),
    "fog": (weather.fog, ((.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75)), ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (digital.brightness, (.05, .1, .15, .2, .3), (.1, .2, .3, .4, .5)),
    "contrast": (digital.contrast, (.75, .5, .4, .3, .15), (.4, .3, .2, .1, .05)),
    "elastic_transform": (digital.elastic_transform, ((0, 0, .08), (.05, .2, .07), (.08, .06, .06), (.1, .04, .05), (.1, .03, .03)),
                          [tuple(244 / 224 * value for value in values)  # the released generator takes images of 224 for 244
                           for values in ((2, .7, .1), (2, .08, .2), (.05, .01, .02), (.07, .01, .02), (.12, .01, .02))]),
    "pixelate": (digital.pixelate, (.95, .9, .85, .75, .65), (.6, .5, .4, .3, .25)),
    "jpeg_compression": (digital.jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "speckle_noise": (noise.speckle_noise, (.06, .1, .12, .16, .2), (.15, .2, .35, .45, .6)),
    "gaussian_blur": (blur.gaussian_blur, (.4, .6, .7, .8, 1), (1, 2, 3, 4, 6)),
    "spatter": (weather.spatter, ((.62, .1, .7, .7, .5, 0), (.65, .1, .8, .7, .5, 0), (.65, .3, 1, .69, .5, 0), (.65, .1, .7, .69, .6, 1),
                                  (.65, .1, .5, .68, .6, 1)),
                ((.65, .3, 4, .69, .6, 0), (.65, .3, 3, .68, .6, 0), (.65, .3, 2, .68, .5, 0), (.65, .3, 1, .65, 1.5, 1),
                 (.67, .4, 1, .65, 1.5, 1))),
    "saturate": (digital.saturate, ((.3, 0), (.1, 0), (1.5, 0), (2, .1), (2.5, .2)), ((.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2))),
}
NAMES = tuple(CORRUPTIONS)
STANDARD = NAMES[:15]  #: the 15 of the benchmark; the other 4 are its validation set, and part of the paper's 19


def corrupt(images: NDArray[np.uint8], name: str, severity: int, indices: Sequence[int], seed: int = 0) -> NDArray[np.uint8]:
    """Images (N, H, W, 3) uint8 under corruption ``name`` at ``severity`` 1 to 5; ``indices`` (N,) say which images they are.

    Raises:
        UserError: an unknown corruption or severity.
    """
    check(name, severity)
    function, small, large = CORRUPTIONS[name]
    parameters = (small if max(images.shape[1:3]) <= SMALL else large)[severity - 1]
    rngs = [np.random.Generator(np.random.SFC64(derive_seed(seed, f"corruption {name}", severity, int(index)))) for index in indices]
    corrupted = function(images / 255.0, parameters, rngs)
    return (np.clip(corrupted, 0, 1) * 255).astype(np.uint8)  # truncated, as the published files are


def check(name: str, severity: int) -> None:
    """Raise a `UserError` unless there is such a corruption and such a severity."""
    if name not in CORRUPTIONS:
        raise UserError(f"corruption '{name}' is unknown; choose from {', '.join(NAMES)}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} is unknown; choose from 1 to 5")
