"""Results of the evaluators as rows and plots of the page. Files may be hand-edited: what is no number is a
dash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from automix_transfer.figures.style import shown
from automix_transfer.report.svg import line_plot
from automix_transfer.runs.collect import File, is_finite
from automix_transfer.runs.folder import Points
from automix_transfer.transfer.chain import number

PLOTTED = 12  #: networks in one plot; more cannot be told apart
#: key of an evaluation's output -> heading; in percent but for Brier and NLL
MEASURES = {
    "top1": "Top-1",
    "ece15": "ECE",
    "adaptive_ece15": "aECE",
    "brier": "Brier",
    "nll": "NLL",
    "fgsm_error": "FGSM error",
    "pgd_error": "PGD error",
    "corruption_top1_15": "C-15",
    "corruption_top1_19": "C-19",
    "corruption_mean": "Corrupted",
    "corruption_relative_error": "mCE",
}
RUN_FILE = "evaluation.json"  #: of a run, in whose folder it lies


@dataclass
class Evaluation:
    """One network on one set: ``values`` by `MEASURES`, its reliability line, and its accuracy by corruption
    and severity."""

    file: File
    label: str
    data: str
    weights: str
    values: dict[str, float]
    made: str
    reliability: list[tuple[float, float]] = field(default_factory=list)
    corruption: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Confusion:
    """The most confused pairs of one run: cards of (true, predicted, count, of, files of examples, files of
    what it was taken for)."""

    file: File
    name: str
    top1: float | None
    images: float | None
    mean_class_top1: float | None
    cards: list[dict[str, Any]]
    per_class: list[tuple[str, float | None, float | None]]


def evaluations(files: Sequence[File]) -> list[Evaluation]:
    """Outputs of ``automix-transfer evaluate``."""
    found = []
    for file, label in zip(files, labels([file.name for file in files]), strict=True):
        content = file.content
        about = content["about"]
        values = {key: value for key in MEASURES if (value := number(content, key)) is not None}
        corruption = {
            str(name): [float(v) for v in row]
            for name, row in _mapping(content.get("corruption")).items()
            if isinstance(row, list) and row and all(is_finite(v) for v in row)
        }
        if corruption and not any(key.startswith("corruption_top1") for key in values):
            means = [sum(row) / len(row) for row in corruption.values()]
            values["corruption_mean"] = sum(means) / len(means)
        bins = [
            row
            for row in _list(content.get("reliability"))
            if isinstance(row, Mapping) and (number(row, "count") or 0) > 0
        ]
        line = [
            (a, b)
            for row in bins
            if (a := number(row, "confidence")) is not None and (b := number(row, "accuracy")) is not None
        ]
        made = str(content.get("corruption_made") or "")
        found.append(
            Evaluation(
                file,
                label,
                str(about.get("data") or "–"),
                str(about.get("weights") or ""),
                values,
                made,
                sorted(line),
                corruption,
            )
        )
    return [one for one in found if one.values]


def labels(names: Sequence[str]) -> list[str]:
    """The shortest ends of paths that tell files apart; a run's own evaluation is called as the run."""
    parts = [
        (path.parent if path.name == RUN_FILE and path.parent.parts else path.with_suffix("")).parts
        for path in map(PurePath, names)
    ]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        short = ["/".join(one[-depth:]) for one in parts]
        if len(set(short)) == len(short):
            return [shown(one) for one in short]
    return list(names)


def measures_of(rows: Sequence[Evaluation]) -> dict[str, str]:
    """The columns that any row has."""
    return {key: name for key, name in MEASURES.items() if any(key in row.values for row in rows)}


def reliability_plot(rows: Sequence[Evaluation]) -> Markup | None:
    """Fig. 8: accuracy against confidence; a network below the diagonal is overconfident."""
    lines = {
        row.label + (f": ECE {row.values['ece15']:.1f} %" if "ece15" in row.values else ""): (
            [100 * x for x, _ in row.reliability],
            [100 * y for _, y in row.reliability],
        )
        for row in [row for row in rows if row.reliability][:PLOTTED]
    }
    label = "Accuracy against confidence for " + ", ".join(lines)
    whole = (0, 100)
    return (
        line_plot(lines, label, "confidence (%)", "accuracy (%)", whole, whole, diagonal=True)
        if lines
        else None
    )


def severity_plot(rows: Sequence[Evaluation]) -> Markup | None:
    """Top-1 against severity (0: clean images), the mean over the corruptions that all rows have."""
    with_some = [row for row in rows if row.corruption]
    names = common_corruptions(with_some)
    lines = {}
    for row in with_some[:PLOTTED]:
        depth = min((len(row.corruption[name]) for name in names), default=0)
        means = [sum(row.corruption[name][s] for name in names) / len(names) for s in range(depth)]
        start = [row.values["top1"]] if "top1" in row.values else []
        lines[row.label] = [float(x) for x in range(1 - len(start), depth + 1)], start + means
    label = "Top-1 against the severity of corruptions"
    return (
        line_plot(lines, label, "severity", "top-1 (%)", y_range=_from_zero(lines))
        if names and lines
        else None
    )


def common_corruptions(rows: Sequence[Evaluation]) -> list[str]:
    """The corruptions under which all rows were measured."""
    return [
        name for name in (rows[0].corruption if rows else {}) if all(name in row.corruption for row in rows)
    ]


def corruption_rows(rows: Sequence[Evaluation]) -> list[tuple[str, list[float | None]]]:
    """A row for each corruption: its mean over severities, by network."""
    names = list(dict.fromkeys(name for row in rows for name in row.corruption))
    return [
        (name, [sum(v) / len(v) if (v := row.corruption.get(name)) else None for row in rows])
        for name in names
    ]


def mixed_plots(content: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Of ``mixed.json``: top-1 and top-2 on mixed samples against λ, and how the masks follow λ."""
    plots = []
    accuracy = {shown(str(name)): _rows(rows) for name, rows in _mapping(content.get("accuracy")).items()}
    for key, title in (
        ("top1", "Top-1: the first guess is one of the two"),
        ("top2", "Top-2: the first two guesses are the two"),
    ):
        if lines := _by_lam({name: (rows, key) for name, rows in accuracy.items()}):
            label = f"{title}, against λ"
            plots.append(
                (title, line_plot(lines, label, "λ, share of image i", "%", (0, 1), _from_zero(lines)))
            )
    masks = _rows(content.get("masks"))
    lines = _by_lam(
        {
            "mean of the masks": (masks, "mean"),
            "deviation within a mask": (masks, "spatial_std"),
            "deviation between pairs": (masks, "pair_std"),
        }
    )
    if lines:
        label = "Statistics of masks against λ"
        plot = line_plot(lines, label, "λ", "", (0, 1), (0, 1), diagonal=True)
        plots.append(("Masks: the mean follows λ, and they are not flat", plot))
    return plots


def confusions(files: Sequence[File]) -> list[Confusion]:
    """``confusion.json`` of fine-grained runs."""
    found = []
    for file in files:
        content = file.content
        cards = [
            {
                "true": str(p.get("true", "?")),
                "predicted": str(p.get("predicted", "?")),
                "count": number(p, "count"),
                "of": number(p, "of"),
                "examples": [str(f) for f in _list(p.get("examples"))],
                "taken_for": [str(f) for f in _list(p.get("predicted_examples"))],
            }
            for p in _list(content.get("pairs"))
            if isinstance(p, Mapping)
        ]
        per_class = [
            (str(c.get("name", "?")), number(c, "n"), number(c, "top1"))
            for c in _list(content.get("per_class"))
            if isinstance(c, Mapping)
        ]
        found.append(
            Confusion(
                file,
                file.name.rpartition("/")[0] or file.name,
                number(content, "top1"),
                number(content, "images"),
                number(content, "mean_class_top1"),
                cards,
                per_class,
            )
        )
    return found


def step_rows(file: File) -> list[dict[str, Any]]:
    """Of benchmarks/step_time.py: a row for each method, fastest first."""
    rows = [
        {
            "name": shown(str(name)),
            **{key: number(row, key) for key in ("seconds", "ratio", "passes", "floor", "not_the_network")},
        }
        for name, row in _mapping(file.content.get("steps")).items()
        if isinstance(row, Mapping)
    ]
    return sorted((row for row in rows if row["seconds"] is not None), key=lambda row: row["seconds"])


def comparison_rows(file: File) -> list[dict[str, Any]]:
    """Of automix-transfer detect compare: name and mean ± std of AP, AP50, AP75 with their gains."""
    rows = []
    for row in _list(file.content.get("rows")):
        if isinstance(row, Mapping):
            rows.append(
                {
                    "name": str(row.get("name", "?")),
                    "folder": str(row.get("folder", "")),
                    **{
                        key: (
                            number(row, key, "mean"),
                            number(row, key, "std"),
                            number(row, "gain", key, "mean"),
                        )
                        for key in ("AP", "AP50", "AP75")
                    },
                }
            )
    return [row for row in rows if any(row[key][0] is not None for key in ("AP", "AP50", "AP75"))]


def _by_lam(given: Mapping[str, tuple[Sequence[Mapping[str, Any]], str]]) -> dict[str, Points]:
    """Lines over λ of the rows that have a number under the given key; those without any are left out."""
    lines = {}
    for name, (rows, key) in given.items():
        found = sorted(
            (x, y)
            for row in rows
            if (x := number(row, "lam")) is not None and (y := number(row, key)) is not None
        )
        if found:
            lines[name] = [x for x, _ in found], [y for _, y in found]
    return lines


def _from_zero(lines: Mapping[str, Points]) -> tuple[float, float]:
    return 0.0, 1.08 * max((max(y) for _, y in lines.values() if y), default=1.0) or 1.0


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [row for row in _list(value) if isinstance(row, Mapping)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
