"""Damaged files for the readers' tests."""

from __future__ import annotations

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
