"""The chain's numbers as text."""

from __future__ import annotations

import copy

from automix_transfer.transfer.chain import comparisons, missing, pretrained
from automix_transfer.transfer.chain_table import chain_table
from tests.report.small import SUMMARY


def test_gains_are_differences_and_missing_numbers_have_none():
    rows = {(row.task, row.metric): row for row in comparisons(SUMMARY)}
    assert (
        rows["Detection, VOC layout", "AP"].gain == 8.5 and rows["Detection, VOC layout", "AP75"].gain is None
    )
    assert rows["Fine-grained, Aircraft layout", "top-1"].gain == -1.5
    assert {row.method: row.gain for row in pretrained(SUMMARY)} == {
        "vanilla": None,
        "mixup": -8.75,
        "cutmix": -51.5,
        "automix": 1.75,
    }


def test_the_text_holds_every_number_in_aligned_columns_and_says_what_is_missing():
    text = chain_table(SUMMARY)
    for expected in (
        "63.00",
        "+1.75",
        "39.50",
        "−1.50",
        "–",
        "no number for detection.random_init.AP75",
        "lags <b>behind</b>",
    ):
        assert expected in text
    block = text.split("\n\n")[1].splitlines()[1:]
    end = block[0].index("AutoMix") + len("AutoMix")
    assert all(line[end - 1].isdigit() for line in block[2:] if "–" not in line[end - 3 : end])


def test_all_sorts_of_summaries():
    for summary in (
        {},
        {"pretrain": None},
        {"pretrain": {"vanilla": 3}},
        {"detection": {"automix": {"AP": float("nan")}}},
    ):
        assert isinstance(chain_table(summary), str)
    full = copy.deepcopy(SUMMARY)
    full["detection"]["random_init"]["AP75"] = 1.0
    assert missing(full) == []
