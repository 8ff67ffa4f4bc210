"""The numbers of ``summary.json`` as rows: what was measured, against what, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automix_transfer.config import flatten
from automix_transfer.mixing.table import METHODS
from automix_transfer.runs.folder import is_number, number

DATASETS = {"cub": "CUB layout", "aircraft": "Aircraft layout"}
SECTIONS = ("pretrain", "detection", "wsol", "finegrained")


@dataclass(frozen=True)
class Comparison:
    """One metric in percent: a baseline's value and AutoMix's; None is what the summary does not hold.

    ``baseline_source`` and ``source``: the files, in the chain's folder, that the two values were read from.
    """

    task: str
    metric: str
    baseline_name: str
    baseline_source: str
    source: str
    baseline: float | None
    value: float | None

    @property
    def gain(self) -> float | None:
        """Points of percent; None where one of the two is missing."""
        return None if self.value is None or self.baseline is None else self.value - self.baseline


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


def comparisons(summary: Mapping[str, Any]) -> list[Comparison]:
    """What the pretrained backbone is worth downstream; rows without any number are left out."""
    detection = ("Detection, VOC layout", "random start", "detection/random_init", "detection/automix")
    wsol = ("Localization, CUB layout", "centre box", "wsol/automix.json", "wsol/automix.json")
    wanted: list[tuple[str, tuple[str, ...], tuple[str, ...]]]
    wanted = [(key, detection, ("detection", "random_init")) for key in ("AP", "AP50", "AP75")]
    wanted += [(key, wsol, ("wsol", "center_box")) for key in ("MaxBoxAcc", "MaxBoxAccV2")]
    for name in summary.get("finegrained") or {}:
        run = f"finegrained/{name}"
        words = (
            f"Fine-grained, {DATASETS.get(name, name)}",
            "from scratch",
            f"{run}_scratch",
            f"{run}_automix",
        )
        wanted.append(("top-1", words, ("finegrained", name, "scratch")))
    rows = []
    for metric, (task, baseline, before, after), keys in wanted:
        key = metric.replace("-", "")
        values = (number(summary, *path, key) for path in (keys, (*keys[:-1], "automix")))
        rows.append(Comparison(task, metric, baseline, before, after, *values))
    return [row for row in rows if row.value is not None or row.baseline is not None]


def missing(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for every number of a chain's summary that could not be measured."""
    numbers = flatten({key: summary[key] for key in SECTIONS if key in summary})
    return [f"summary.json has no number for {key}" for key, value in numbers.items() if not is_number(value)]


def percent(value: float | None, signed: bool = False) -> str:
    """Two decimals; a dash for what is missing."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.2f}".replace("-", "−")


def method_name(name: str) -> str:
    """A method's name for people."""
    return METHODS[name].title if name in METHODS else name.replace("_", " ")
