"""Contrast of the pages' colours by WCAG 2.1, in both themes: text 4.5 to 1 (AA, 1.4.3), lines and controls 3
to 1 (1.4.11)."""

from __future__ import annotations

import re
from importlib import resources

import pytest

TEXT = ["ink", "soft", "accent", "up", "down", "i", "j"]
LINES = [f"s{slot}" for slot in range(8)]
GROUNDS = ["paper", "card"]


def palettes() -> dict[str, dict[str, str]]:
    """Theme -> name -> #rrggbb, read from the style sheet."""
    text = (resources.files("automix_transfer.report") / "templates" / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6})", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.S)[:2]
    )
    return {"light": light, "dark": {**light, **dark}}


def channels(colour: str) -> list[int]:
    """Red, green and blue of #rgb or #rrggbb, 0 to 255."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
    return [int(digits[k : k + 2], 16) for k in (0, 2, 4)]


def luminance(colour: str) -> float:
    """Relative luminance."""
    shares = [channel / 255 for channel in channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def mixed(a: str, b: str, share: float) -> str:
    """color-mix(in srgb, a share, b)."""
    pairs = zip(channels(a), channels(b), strict=True)
    return "#" + "".join(f"{round(share * x + (1 - share) * y):02x}" for x, y in pairs)


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_formula():
    assert contrast("#000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#fff") == pytest.approx(
        4.48, abs=0.01
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pairs_of_colours(theme):
    colours = palettes()[theme]
    pairs = [(name, ground, 4.5) for name in TEXT for ground in GROUNDS]
    pairs += [("ink", "track", 4.5), ("soft", "track", 4.5)]  # under the pointer
    # bars
    pairs += [(name, ground, 3.0) for name in ("s0", "i-fill", "j-fill") for ground in (*GROUNDS, "track")]
    pairs += [(name, "card", 4.5) for name in LINES]  # lines, and the runs' names beside them
    for name, ground, least in pairs:
        found = contrast(colours[name], colours[ground])
        assert found >= least, f"{theme}: --{name} on --{ground} is {found:.2f} to 1"
    for share in (0.1, 0.2, 0.3):  # cells of the table by corruption
        assert contrast(colours["ink"], mixed(colours["accent"], colours["card"], share)) >= 4.5, (
            theme,
            share,
        )


def test_both_themes_set_the_same_colours():
    found = palettes()
    text = (resources.files("automix_transfer.report") / "templates" / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, re.S)
    assert (
        set(re.findall(r"--([\w-]+):", blocks[0]))
        == set(re.findall(r"--([\w-]+):", blocks[1]))
        == set(found["light"])
    )
    used = set()
    for name in ("page.css", "page_sections.css"):
        used |= set(
            re.findall(
                r"var\(--([\w-]+)\)",
                (resources.files("automix_transfer.report") / "templates" / name).read_text(encoding="utf-8"),
            )
        )
    assert used - {"c", "k", "step", "off", "shape", "v"} <= set(found["light"])
