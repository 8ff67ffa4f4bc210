"""Which images the page of overlays shows."""

import math

import pytest

from automix_transfer.report.localization_page import choose


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 24, 25, 100])
def test_best_median_and_worst_are_different_images(n, count):
    scores = [(7 * k % n) / n for k in range(n)]
    best, median, worst = choose(scores, count)
    assert len({*best, *median, *worst}) == len(best) + len(median) + len(worst) == min(n, 3 * count)
    ranked = sorted(scores, reverse=True)
    assert [scores[k] for k in best] == ranked[:count]
    if n >= 3 * count:
        assert [scores[k] for k in worst] == sorted(scores)[:count]
        assert ranked.index(scores[median[0]]) - 0 <= n // 2 <= ranked.index(scores[median[-1]]) + 1


def test_images_without_a_score_are_left_out():
    assert choose([math.nan, 0.5, math.nan], 2) == [[1], [], []]
