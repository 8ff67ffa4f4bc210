"""The paper's numbers: as its text has them, found by what was trained, and the contradictions that are noted
are those that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix_transfer.errors import UserError
from automix_transfer.mixing import METHODS
from automix_transfer.paper import published as paper


def printed(name: str, values: list, digits: list[int]) -> str:
    return " ".join(
        [
            name.replace("*", "∗"),
            *(
                "-" if value is None else f"{value:.{digit}f}"
                for value, digit in zip(values, digits, strict=True)
            ),
        ]
    )


@pytest.mark.parametrize("name", paper.tables())
def test_every_row_is_a_line_of_the_papers_text(name: str, shared: Path) -> None:
    text = (shared / "paper" / "automix.txt").read_text()
    text = text.replace("`λ", "ℓ_λ")
    table = paper.table(name)
    for row, cells in zip(table.row_names, table.cells, strict=True):
        line = printed(row, [cell.value for cell in cells], list(table.digits))
        assert re.search(rf"^ ?{re.escape(line)}$", text, re.MULTILINE), line
    if table.gain:
        assert " ".join(["Gain", *(f"{value:+.2f}" for value in table.gain)]) in text


def test_cells_are_found_by_what_was_trained() -> None:
    assert paper.cell("table1", "CIFAR-100", "R-18", "automix").value == 82.04
    assert paper.cell("Table 2", "R-50", "300 epochs", "automix").value == 79.25
    assert paper.cell(3, "mobilenetv2", "RSB A3", "mixup_cutmix").value == 69.86  # type: ignore[arg-type]
    assert paper.cell("table6", "automix").value == 83.13  # top-1 is meant
    assert paper.cell("table7", "COCO", "ap", "automix").value == 38.6
    assert paper.cell("table10", "CIFAR-100", "automix").value == 82.04  # the method as it is
    assert paper.cell("table10", "CIFAR-100", "automix", "MP").value == 81.93
    assert paper.cell("table4", "ConvNeXt-T", "transmix").value is None
    with pytest.raises(UserError, match="no cells of table1"):
        paper.cell("table1", "CIFAR-100", "R-50")
    with pytest.raises(UserError, match="10 cells of table1"):
        paper.cell("table1", "CIFAR-100", "R-18")
    with pytest.raises(UserError, match="did you mean table13"):
        paper.table("tabel13")
    with pytest.raises(UserError, match="settings and no results"):
        paper.table("12")


def test_methods_are_those_of_the_library_and_experiments_are_shared_between_tables() -> None:
    methods = {cell.attributes["method"] for table in paper.tables().values() for cell in table}
    assert methods <= set(METHODS)
    found = paper.same(paper.cell("table1", "CIFAR-100", "R-18", "automix").attributes)
    assert [cell.table for cell in found] == ["table1", "table10", "table14"] and {
        cell.value for cell in found
    } == {82.04}


def test_the_contradictions_that_are_noted_are_those_that_are_there() -> None:
    """Tables that differ about one experiment, and gains that are not those of the rows: each has a note with
    the numbers."""
    for table in paper.tables().values():
        notes = " ".join(table.notes)
        for cell in table:
            others = {other.value for other in paper.same(cell.attributes)} - {cell.value}
            assert all(f"{other:.2f}" in notes for other in others if other is not None), (cell, others)
        for column, gain in enumerate(table.gain or ()):
            values = [row[column].value for row in table.cells if row[column].value is not None]
            real = values[-1] - max(values[:-1])
            assert abs(real - gain) < 1e-6 or f"{real:.2f}" in notes, (table.name, column, real, gain)


@given(st.text(max_size=20), st.lists(st.text(max_size=10), max_size=3))
def test_any_address_is_a_cell_or_a_sentence(name: str, tokens: list[str]) -> None:
    for known in (name, "table10"):
        try:
            paper.cell(known, *tokens)
        except UserError as error:
            assert "\n" not in str(error)
