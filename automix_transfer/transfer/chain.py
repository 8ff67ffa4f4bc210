"""The pretrainings of a demo's ``summary.json`` as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automix_transfer.config import flatten
from automix_transfer.mixing.table import METHODS
from automix_transfer.runs.folder import is_number, number


@dataclass(frozen=True)
class Pretrained:
    """One method's row: validation top-1 in percent (of encoder k and q), its gain over vanilla, and its
    accuracy on mixed samples at λ = 0.5."""

    method: str
    source: str
    gain: float | None
    top1: float | None
    top1_q: float | None
    mixed_top1: float | None
    mixed_top2: float | None


def pretrained(summary: Mapping[str, Any]) -> list[Pretrained]:
    """A row for each method of ``summary["pretrain"]``."""
    vanilla = number(summary, "pretrain", "vanilla", "top1")
    rows = []
    for name, values in (summary.get("pretrain") or {}).items():
        top1, *others = (number(values, key) for key in ("top1", "top1_q", "mixed_top1", "mixed_top2"))
        gain = None if name == "vanilla" or top1 is None or vanilla is None else top1 - vanilla
        rows.append(Pretrained(name, f"pretrain/{name}", gain, top1, *others))
    return rows


def missing(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for every number of a chain's summary that could not be measured."""
    numbers = flatten({"pretrain": summary["pretrain"]}) if "pretrain" in summary else {}
    return [f"summary.json has no number for {key}" for key, value in numbers.items() if not is_number(value)]


def percent(value: float | None, signed: bool = False) -> str:
    """Two decimals; a dash for what is missing."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.2f}".replace("-", "−")


def method_name(name: str) -> str:
    """A method's name for people."""
    return METHODS[name].title if name in METHODS else name.replace("_", " ")
