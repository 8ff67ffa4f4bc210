"""The numbers of ``summary.json`` as rows: what was measured, against what, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from automix_transfer.mixing.table import METHODS

DATASETS = {"cub": "CUB layout", "aircraft": "Aircraft layout"}


@dataclass(frozen=True)
class Comparison:
    """One metric in percent: a baseline's value and ours; None is what the summary does not hold.

    ``baseline_source`` and ``source``: the files, in the chain's folder, that the two values were read from.
    """

    task: str
    metric: str
    baseline_name: str
    baseline: float | None
    name: str
    value: float | None
    baseline_source: str
    source: str

    @property
    def gain(self) -> float | None:
        """Points of percent; None where one of the two is missing."""
        return None if self.value is None or self.baseline is None else self.value - self.baseline


@dataclass(frozen=True)
class Pretrained:
    """One method's row: validation top-1 in percent, its gain over vanilla, and its accuracy on mixed samples
    at λ = 0.5."""

    method: str
    top1: float | None
    gain: float | None
    mixed_top1: float | None
    mixed_top2: float | None
    top1_q: float | None
    source: str


def pretrained(summary: Mapping[str, Any]) -> list[Pretrained]:
    """A row for each method of ``summary["pretrain"]``."""
    methods = _section(summary, "pretrain")
    vanilla = number(methods, "vanilla", "top1")
    rows = []
    for name in methods:
        top1 = number(methods, name, "top1")
        gain = None if name == "vanilla" or top1 is None or vanilla is None else top1 - vanilla
        mixed = [number(methods, name, key) for key in ("mixed_top1", "mixed_top2")]
        rows.append(
            Pretrained(
                name, top1, gain, mixed[0], mixed[1], number(methods, name, "top1_q"), f"pretrain/{name}"
            )
        )
    return rows


def comparisons(summary: Mapping[str, Any]) -> list[Comparison]:
    """What the pretrained backbone is worth downstream; rows without any number are left out."""
    detection = ("Detection, VOC layout", "random start", "detection/random_init", "detection/automix")
    wsol = ("Localization, CUB layout", "centre box", "wsol/automix.json", "wsol/automix.json")
    rows = [
        *(_compared(summary, m, *detection, "detection", "random_init") for m in ("AP", "AP50", "AP75")),
        *(_compared(summary, m, *wsol, "wsol", "center_box") for m in ("MaxBoxAcc", "MaxBoxAccV2")),
    ]
    for name in _section(summary, "finegrained"):
        task, folder = f"Fine-grained, {DATASETS.get(name, name)}", f"finegrained/{name}"
        files = f"{folder}_scratch", f"{folder}_automix"
        rows.append(_compared(summary, "top-1", task, "from scratch", *files, "finegrained", name, "scratch"))
    return [row for row in rows if row.value is not None or row.baseline is not None]


def _compared(
    summary: Mapping[str, Any],
    metric: str,
    task: str,
    baseline_name: str,
    baseline_source: str,
    source: str,
    *baseline: str,
) -> Comparison:
    """A row; ``baseline``: where the summary has its numbers, ``automix`` lies beside it."""
    key = metric.replace("-", "")
    before, value = (number(summary, *keys, key) for keys in (baseline, (*baseline[:-1], "automix")))
    return Comparison(task, metric, baseline_name, before, "AutoMix", value, baseline_source, source)


def missing(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for every number that a chain's summary should have and has not."""
    wanted = [("pretrain", method, "top1") for method in ("vanilla", "mixup", "cutmix", "automix")]
    wanted += [("pretrain", "automix", "mixed_top2")]
    wanted += [
        ("detection", run, metric) for run in ("random_init", "automix") for metric in ("AP", "AP50", "AP75")
    ]
    wanted += [
        ("wsol", run, metric) for run in ("center_box", "automix") for metric in ("MaxBoxAcc", "MaxBoxAccV2")
    ]
    deep = [("finegrained", name, start, "top1") for name in DATASETS for start in ("scratch", "automix")]
    return [
        f"summary.json has no number for {'.'.join(keys)}"
        for keys in (*wanted, *deep)
        if number(summary, *keys) is None
    ]


def number(values: Any, *keys: str) -> float | None:
    """``values[a][b]...`` if it is a finite number, else None."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    # neither NaN nor infinite
    usable = isinstance(values, (int, float)) and not isinstance(values, bool) and abs(values) < 1e300
    return float(values) if usable else None


def percent(value: float | None, signed: bool = False) -> str:
    """Two decimals; a dash for what is missing."""
    if value is None:
        return "–"
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.replace("-", "−")


def method_name(name: str) -> str:
    """A method's name for people."""
    return METHODS[name].title if name in METHODS else name.replace("_", " ")


def _section(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = summary.get(key)
    return found if isinstance(found, Mapping) else {}
