"""Damaged files for the readers' tests, and what is right about whatever is read from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


@st.composite
def mutated(draw, original: bytes) -> bytes:
    """The original with a few spans overwritten, cut out, doubled or exchanged for awkward words."""
    data = bytearray(original)
    awkward = [
        b"nan",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"<",
        b"&x;",
        b"\x00",
        b"\xff",
        b"",
        b"<object>",
        b"</size>",
        b"null",
        b"[]",
        b"{}",
        b'"',
        b"true",
        b"1.5",
        b"[" * 3000,
        "\u0663".encode(),
        b"\\ud800",
    ]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        data[start : start + length] = draw(st.one_of(st.sampled_from(awkward), st.binary(max_size=8)))
    return bytes(data)


def assert_sound(
    records: Sequence[Mapping[str, Any]], sizes: Mapping[Path, tuple[int, int]], classes: Collection[str] = ()
) -> None:
    """Each image of its size (width, height), and boxes not far from it, of ``classes`` if any."""
    files = [Path(record["file_name"]) for record in records]
    assert set(files) <= set(sizes)
    for file, record in zip(files, records, strict=True):
        width, height = sizes[file]
        assert (record["width"], record["height"]) == (width, height)
        for thing in record["objects"]:
            x0, y0, x1, y1 = thing["bbox"]
            assert -16 * width <= x0 <= x1 <= 16 * width and -16 * height <= y0 <= y1 <= 16 * height
            assert thing["class"] in classes if classes else isinstance(thing["class"], str)
            assert isinstance(thing["difficult"], bool) and isinstance(thing["iscrowd"], bool)
