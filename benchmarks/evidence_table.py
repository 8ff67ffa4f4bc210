"""The tables and the picture of `evidence.py`, from the small files that it keeps of each run."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from automix_transfer.compared.paired import difference
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json, write_text

COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "ece15": "ECE",
    "nll": "NLL",
    "fgsm_error": "FGSM error",
    "seen_top1": "top-1 on the trained images",
}
#: series of a panel, with their styles and labels
CURVES = {
    "automix k": ("C0-", "AutoMix, k"),
    "automix q": ("C0:", "AutoMix, q"),
    "vanilla": ("C7-", "vanilla"),
    "cutmix": ("C1-", "CutMix"),
}
CHANGED = {
    "automix k": ("C0-", "AutoMix, k"),
    "automix_mixed_only k": ("C0--", "AutoMix without the clean loss"),
    "cutmix": ("C1-", "CutMix"),
    "cutmix_clean": ("C1--", "CutMix with a clean loss"),
}
FIRST_CHOOSING = 100  #: the lowest seed of runs that choices are made on: they stand in a table of their own


@dataclass
class Series:
    """One network of one setting over its seeds.

    Attributes:
        held: seed -> what was measured on the images that nobody trained on.
        curves: seed -> the rows of its log.csv.
    """

    method: str
    epochs: int
    network: str
    held: dict[int, Mapping[str, float]] = field(default_factory=dict)
    curves: dict[int, list[dict[str, str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.method if self.network == "encoder" else f"{self.method} {self.network}"

    @property
    def measure(self) -> str:
        """The column of its top-1 in log.csv, which names the network where a run has several."""
        row = next(iter(self.curves.values()))[0]
        return f"top1_{self.network}" if f"top1_{self.network}" in row else "top1"

    def column(self, key: str) -> list[float]:
        """A measure over the seeds that have it."""
        return [row[key] for _, row in sorted(self.held.items()) if key in row]


Runs = dict[tuple[str, int, str], Series]  #: by method, epochs and network


def write_tables(
    kept: Path | None,
    contrasts: Iterable[tuple[str, str]],
    beside: Iterable[tuple[str, str]],
    docs: Path | None = None,
) -> None:
    """Print the tables of the runs in ``kept`` and write them there (tables.md, tables.json); the picture
    goes to ``docs``.

    Args:
        contrasts, beside: pairs (AutoMix's network, another method's), the first are the question that was
            asked before the first run.

    Raises:
        UserError: no run that is measured.
    """
    series = read(kept) if kept else {}
    if kept is None or not any(one.held for one in series.values()):
        raise UserError(f"--keep {kept} holds no run that was measured; train with --keep {kept} first")
    rows = [row(one) for _, one in sorted(series.items(), key=lambda pair: order(pair[1])) if one.held]
    changed = read(kept, choosing=True)
    asked, more = (differences(series, pairs) for pairs in (contrasts, beside))
    text = "\n\n".join(
        [
            markdown(
                rows,
                (
                    "network",
                    "epochs",
                    "seeds",
                    "top-1",
                    "top-5",
                    "ECE",
                    "NLL",
                    "FGSM error",
                    "top-1, trained on",
                ),
            ),
            "Asked before the first run, paired by seed:",
            markdown(asked, ("difference in top-1", "epochs", "seeds", "mean", "95 % interval", "verdict")),
            "Beside it:",
            markdown(more, ("difference in top-1", "epochs", "seeds", "mean", "95 % interval", "verdict")),
            "One change at a time, on the validation images:",
            markdown(choices(series, changed), ("network", "epochs", "seeds", "top-1", "top-1, trained on")),
        ]
    )
    print(text)
    write_text(kept / "tables.md", text + "\n")
    values = {f"{one.name}, {one.epochs} epochs": one.held for one in series.values() if one.held}
    write_json(kept / "tables.json", {"held": values, "asked": asked, "beside": more})
    if docs:
        draw(series, changed, docs / "evidence.png")


def read(kept: Path, choosing: bool = False) -> Runs:
    """Every run of ``kept``, by method, epochs and network; or those that choices are made on."""
    series: Runs = {}
    for file in sorted(kept.glob("*/held.json")):
        method, epochs, seed = file.parent.name.rsplit("_", 2)
        if (int(seed) >= FIRST_CHOOSING) != choosing:
            continue
        held = read_json(file)
        with (file.parent / "log.csv").open(encoding="utf-8") as log:
            curve = list(csv.DictReader(log))
        networks = {key.removeprefix("top1_") for key in curve[-1] if key.startswith("top1_")} or {"encoder"}
        for network in sorted(networks):
            one = series.setdefault((method, int(epochs), network), Series(method, int(epochs), network))
            one.curves[int(seed)] = curve
            if network in held:
                one.held[int(seed)] = held[network]
    return series


def choices(series: Runs, changed: Runs) -> list[list[Any]]:
    """The runs with seeds from `FIRST_CHOOSING` up, behind the others of their lengths: top-1 of the last
    epoch, on the validation images and on those that were trained on."""
    lengths = {one.epochs for one in changed.values()}
    found = []
    for one in (*(one for one in series.values() if one.epochs in lengths), *changed.values()):
        top1 = [mean_curve([curve], one.measure)[1][-1] for curve in one.curves.values()]
        seeds = ", ".join(map(str, one.curves))
        seen = one.column("seen_top1")
        found.append([one.name, one.epochs, seeds, spread(top1), spread(seen) if seen else ""])
    return found


def order(one: Series) -> tuple[int, bool, float]:
    """Where a series stands in the table: by length, AutoMix first, the best first."""
    top1 = one.column("top1")
    return one.epochs, one.method != "automix", -statistics.mean(top1) if top1 else 0.0


def row(one: Series) -> list[Any]:
    """A series in the first table: means, with the standard deviation over seeds."""
    shown: list[Any] = [one.name, one.epochs, len(one.held)]
    for key in COLUMNS:
        values = one.column(key)
        mean = f"{statistics.mean(values):.2f}" if values else ""
        shown.append(spread(values) if values and key == "top1" else mean)
    return shown


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def differences(
    series: Mapping[tuple[str, int, str], Series], pairs: Iterable[tuple[str, str]]
) -> list[list[Any]]:
    """Each pair at each length where both are measured on two seeds or more: the mean difference of top-1
    over the seeds that both have, and its interval, ± t(0.975, n-1)·s/√n."""
    found = []
    for ours, other in pairs:
        for epochs in sorted({key[1] for key in series}):
            one, two = known(series, ours, epochs), known(series, other, epochs)
            seeds = sorted(one.held.keys() & two.held.keys()) if one and two else []
            if one is None or two is None or one.epochs != epochs or len(seeds) < 2:
                continue
            values = [one.held[seed]["top1"] - two.held[seed]["top1"] for seed in seeds]
            gain = difference(values)
            low, high = gain.interval or (gain.mean, gain.mean)
            label, interval = f"{ours} - {other}", f"[{low:+.2f}, {high:+.2f}]"
            found.append([label, epochs, gain.n, f"{gain.mean:+.2f}", interval, gain.word])
    return found


def known(series: Mapping[tuple[str, int, str], Series], name: str, epochs: int) -> Series | None:
    """The series that a contrast names: ``method``, ``method network``, or ``method@epochs``."""
    method, _, network = name.partition(" ")
    method, _, other = method.partition("@")
    return series.get((method, int(other) if other else epochs, network or "encoder"))


def markdown(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> str:
    """A table; numbers as they are written."""
    return tabulate(rows, head, "github", disable_numparse=True) if rows else "(not measured yet)"


def draw(series: Runs, changed: Runs, file: Path) -> None:
    """Learning curves on the validation images, and how alive AutoMix's masks are: means over the seeds."""
    from matplotlib.figure import Figure

    lengths = sorted({key[1] for key in series if key[0] == "automix"})
    shown = {f"{epochs} epochs": (series, epochs, CURVES) for epochs in lengths}
    if changed:  # beside the runs that they change, which are of other seeds
        both = {**changed, **series}
        shown[f"{lengths[-1]} epochs, one change"] = both, lengths[-1], CHANGED
    rows = (len(shown) + 2) // 2
    figure = Figure(figsize=(9.6, 3.5 * rows), layout="constrained")
    *places, masks = figure.subplots(rows, 2, squeeze=False).flat[: len(shown) + 1]
    for place, (title, (runs, epochs, curves)) in zip(places, shown.items(), strict=True):
        for name, (style, label) in curves.items():
            if (one := known(runs, name, epochs)) is not None:
                place.plot(*mean_curve(one.curves.values(), one.measure), style, label=label)
        place.set(title=title, xlabel="epoch", ylabel="validation top-1 (%)")
    for epochs, style in zip(lengths, ("C0-", "C0--"), strict=False):
        curve = mean_curve(series["automix", epochs, "k"].curves.values(), "mask_std")
        masks.plot(*curve, style, label=f"{epochs} epochs")
    masks.set(title="AutoMix's masks", xlabel="epoch", ylabel="standard deviation in a mask", ylim=(0, None))
    for place in (*places, masks):
        place.legend(frameon=False)
        place.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def mean_curve(curves: Iterable[Iterable[Mapping[str, str]]], key: str) -> tuple[list[int], list[float]]:
    """Epochs, and the mean over the runs of a column of their logs, where it was measured."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for curve in curves:
        for line in curve:
            if line.get(key):
                values[int(line["epoch"])].append(float(line[key]))
    return sorted(values), [statistics.mean(values[epoch]) for epoch in sorted(values)]
