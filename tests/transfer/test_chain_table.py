"""The pretrainings of a demo as text."""

from __future__ import annotations

import copy

from automix_transfer.transfer.chain import missing, pretrained
from automix_transfer.transfer.chain_table import chain_table
from tests.report.small import SUMMARY


def test_gains_are_differences_and_missing_numbers_have_none():
    assert {row.method: row.gain for row in pretrained(SUMMARY)} == {
        "vanilla": None,
        "mixup": -8.75,
        "cutmix": -51.5,
        "automix": 1.75,
    }


def test_the_text_holds_every_number_and_says_what_is_missing():
    text = chain_table(SUMMARY)
    for expected in (
        "63.00",
        "+1.75",
        "39.50",
        "–",
        "no number for pretrain.cutmix.mixed_top1",
        "<b>behind</b>",
    ):
        assert expected in text


def test_all_sorts_of_summaries():
    for summary in (
        {},
        {"pretrain": None},
        {"pretrain": {"vanilla": 3}},
        {"pretrain": {"vanilla": {"top1": "x"}}},
    ):
        assert isinstance(chain_table(summary), str)
    full = copy.deepcopy(SUMMARY)
    full["pretrain"]["cutmix"]["mixed_top1"] = 1.0
    assert missing(full) == []
