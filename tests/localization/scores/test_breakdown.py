"""Every kind of miss, on boxes where it can be seen."""

import numpy as np
import pytest

from automix_transfer.localization.scores.breakdown import KINDS, kind_of

BIRD = [[20, 20, 59, 59]]


@pytest.mark.parametrize(
    "predicted, true, right, kind",
    [
        ([20, 20, 59, 59], BIRD, True, "right"),
        ([20, 20, 59, 59], BIRD, None, "right"),
        ([20, 20, 59, 59], BIRD, False, "class wrong"),
        ([25, 25, 40, 40], BIRD, True, "part only"),  # all of it on the bird
        ([0, 0, 99, 99], BIRD, True, "too large"),  # all of the bird in it
        ([10, 10, 29, 29], BIRD, True, "elsewhere"),  # a corner
        ([70, 70, 90, 90], BIRD, None, "elsewhere"),
        ([0, 0, 99, 39], [[0, 0, 29, 39], [70, 0, 99, 39]], True, "several objects"),
        ([0, 0, 99, 39], [[0, 0, 29, 39], [90, 60, 99, 99]], True, "too large"),
    ],
)
def test_kinds(predicted, true, right, kind):
    assert kind in KINDS and kind_of(np.array(predicted), np.array(true), right) == kind
