"""Results of the evaluators as rows and plots of the page. What is no number is a dash; what is not as the
evaluators write it raises, and `Found.read` says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from automix_transfer.figures.style import shown
from automix_transfer.report.embed import Embedder, Picture
from automix_transfer.report.svg import line_plot
from automix_transfer.runs.collect import File
from automix_transfer.runs.folder import Points, finite, number

PLOTTED = 12  #: networks in one plot; more cannot be told apart
#: key of an evaluation's output -> heading; in percent but for Brier and NLL
MEASURES = {
    "top1": "Top-1",
    "map": "mAP",
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
AP = ("AP", "AP50", "AP75")


@dataclass
class Evaluation:
    """One network on one set: ``values`` by `MEASURES`, its bins' (confidence, accuracy), and its accuracy by
    corruption and severity."""

    file: File
    label: str
    data: str
    weights: str
    made: str
    values: dict[str, float]
    reliability: list[tuple[float, float]]
    corruption: dict[str, list[float]]


@dataclass
class Confusion:
    """The most confused pairs of one run as cards, and (class, images, top-1) of every class."""

    file: File
    name: str
    top1: float | None
    images: float | None
    mean_class_top1: float | None
    cards: list[dict[str, Any]]
    per_class: list[tuple[str, float | None, float | None]]


def evaluation(file: File, label: str) -> Evaluation:
    """An output of ``automix-transfer evaluate``."""
    content, about = file.content, file.content["about"]
    values = {key: value for key in MEASURES if (value := number(content, key)) is not None}
    corruption = {
        name: [finite(value) for value in row] for name, row in (content.get("corruption") or {}).items()
    }
    if corruption and not any(key.startswith("corruption_top1") for key in values):
        values["corruption_mean"] = sum(map(_mean, corruption.values())) / len(corruption)
    bins = [row for row in content.get("reliability") or () if row["count"] > 0]
    line = sorted(
        (100 * finite(row["confidence"], 0, 1), 100 * finite(row["accuracy"], 0, 1)) for row in bins
    )
    data, weights = str(about.get("data") or "–"), str(about.get("weights") or "")
    made = str(content.get("corruption_made") or "")
    return Evaluation(file, label, data, weights, made, values, line, corruption)


def labels(names: Sequence[str]) -> dict[str, str]:
    """Path -> the shortest end that tells it apart; a run's own evaluation is called as the run."""
    parts = [
        (path.parent if path.name == RUN_FILE and path.parent.parts else path.with_suffix("")).parts
        for path in map(PurePath, names)
    ]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(one[-depth:]) for one in parts]
        if len(set(short)) == len(short):
            return dict(zip(names, map(shown, short), strict=True))
    return {name: name for name in names}


def measures_of(rows: Sequence[Evaluation]) -> dict[str, str]:
    """The columns that any row has."""
    return {key: name for key, name in MEASURES.items() if any(key in row.values for row in rows)}


def reliability_plot(rows: Sequence[Evaluation]) -> Markup | None:
    """Fig. 8: accuracy against confidence; a network below the diagonal is overconfident."""
    lines = {}
    for row in [row for row in rows if row.reliability][:PLOTTED]:
        ece = f": ECE {row.values['ece15']:.1f} %" if "ece15" in row.values else ""
        lines[row.label + ece] = [x for x, _ in row.reliability], [y for _, y in row.reliability]
    if not lines:
        return None
    label, whole = "Accuracy against confidence for " + ", ".join(lines), (0, 100)
    return line_plot(lines, label, "confidence (%)", "accuracy (%)", whole, whole, diagonal=True)


def severity_plot(rows: Sequence[Evaluation]) -> Markup | None:
    """Top-1 against severity (0: clean images), the mean over the corruptions that all rows have."""
    rows = [row for row in rows if row.corruption]
    names = [
        name for name in (rows[0].corruption if rows else ()) if all(name in row.corruption for row in rows)
    ]
    if not names:
        return None
    lines = {}
    for row in rows[:PLOTTED]:
        means = list(map(_mean, zip(*(row.corruption[name] for name in names), strict=False)))
        start = [row.values["top1"]] if "top1" in row.values else []
        lines[row.label] = [float(x) for x in range(1 - len(start), len(means) + 1)], start + means
    label = "Top-1 against the severity of corruptions"
    return line_plot(lines, label, "severity", "top-1 (%)", y_range=_from_zero(lines))


def corruption_rows(rows: Sequence[Evaluation]) -> list[tuple[str, list[float | None]]]:
    """A row for each corruption: its mean over severities, by network."""
    names = dict.fromkeys(name for row in rows for name in row.corruption)
    return [(name, [_mean(v) if (v := row.corruption.get(name)) else None for row in rows]) for name in names]


def mixed_plots(file: File) -> list[tuple[str, Markup]]:
    """Of ``mixed.json``: top-1 and top-2 on mixed samples against λ, and how the masks follow λ."""
    accuracy = {shown(name): rows for name, rows in file.content["accuracy"].items()}
    plots = []
    for key, title in (
        ("top1", "Top-1: the first guess is one of the two"),
        ("top2", "Top-2: the first two guesses are the two"),
    ):
        if lines := _by_lam({name: (rows, key) for name, rows in accuracy.items()}):
            plot = line_plot(
                lines, f"{title}, against λ", "λ, share of image i", "%", (0, 1), _from_zero(lines)
            )
            plots.append((title, plot))
    masks = file.content.get("masks") or []
    keys = {
        "mean of the masks": "mean",
        "deviation within a mask": "spatial_std",
        "deviation between pairs": "pair_std",
    }
    if lines := _by_lam({name: (masks, key) for name, key in keys.items()}):
        plot = line_plot(lines, "Statistics of masks against λ", "λ", "", (0, 1), (0, 1), diagonal=True)
        plots.append(("Masks: the mean follows λ, and they are not flat", plot))
    return plots


def confusion_reader(embedder: Embedder, pairs: int = 8, each: int = 3) -> Callable[[File], Confusion]:
    """Reads ``confusion.json`` of a fine-grained run: its first pairs, with pictures of both sides."""

    def read(file: File) -> Confusion:
        content = file.content

        def pictures(names: Sequence[str]) -> list[Picture]:
            found = (embedder.embed(file.path.parent / str(name), file.path.parent) for name in names[:each])
            return [picture for picture in found if picture]

        cards = [
            {
                "true": str(pair["true"]),
                "predicted": str(pair["predicted"]),
                "count": number(pair, "count"),
                "of": number(pair, "of"),
                "examples": pictures(pair["examples"]),
                "taken_for": pictures(pair.get("predicted_examples", [])),
            }
            for pair in content["pairs"][:pairs]
        ]
        classes = [
            (str(row["name"]), number(row, "n"), number(row, "top1")) for row in content.get("per_class", [])
        ]
        top1, images, mean = (number(content, key) for key in ("top1", "images", "mean_class_top1"))
        name = file.name.rpartition("/")[0] or file.name
        return Confusion(file, name, top1, images, mean, cards, classes)

    return read


def step_rows(file: File) -> list[dict[str, Any]]:
    """Of benchmarks/step_time.py: a row for each method, fastest first."""
    keys = ("seconds", "ratio", "passes", "floor", "not_the_network")
    rows: list[dict[str, Any]] = [
        {"name": shown(name)} | {key: number(row, key) for key in keys}
        for name, row in file.content["steps"].items()
    ]
    return sorted((row for row in rows if row["seconds"] is not None), key=lambda row: row["seconds"])


@dataclass
class Answer:
    """A comparison of backbones; the first is the reference. ``rows`` are those of its ``answer.json``."""

    file: File
    backbones: list[str]
    rows: list[dict[str, Any]]


def answer(file: File) -> Answer:
    """Of automix-transfer transfer: what each backbone reaches on every figure, and its difference to the
    first."""
    rows = []
    for row in file.content["rows"]:
        scores = []
        for score in row["scores"]:
            ends = [number({"end": end}, "end") for end in score.get("interval") or ()]
            scores.append(
                {key: number(score, key) for key in ("mean", "std", "difference")}
                | {key: str(score.get(key) or "") for key in ("backbone", "word", "missing")}
                | {"interval": ends if len(ends) == 2 and None not in ends else None}
            )
        rows.append({key: str(row[key]) for key in ("task", "data", "figure", "better")} | {"scores": scores})
    backbones = [str(name) for name in file.content["about"]["backbones"]]
    return Answer(file, backbones, [row for row in rows if row["scores"]])


def comparison_rows(file: File) -> list[dict[str, Any]]:
    """Of automix-transfer detect compare: name and (mean, std, gain) of AP, AP50, AP75."""
    rows = []
    for row in file.content["rows"]:
        paths = {key: ((key, "mean"), (key, "std"), ("gain", key, "mean")) for key in AP}
        numbers = {key: tuple(number(row, *path) for path in of) for key, of in paths.items()}
        rows.append({"name": str(row["name"]), **numbers})
    return [row for row in rows if any(row[key][0] is not None for key in AP)]


def _by_lam(given: Mapping[str, tuple[Sequence[Mapping[str, Any]], str]]) -> dict[str, Points]:
    """Lines over λ of the rows that have a number under the given key; those without any are left out."""
    lines = {}
    for name, (rows, key) in given.items():
        pairs = [(number(row, "lam"), number(row, key)) for row in rows]
        if found := sorted((x, y) for x, y in pairs if x is not None and y is not None):
            lines[name] = [x for x, _ in found], [y for _, y in found]
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _from_zero(lines: Mapping[str, Points]) -> tuple[float, float]:
    return 0.0, 1.08 * max((max(y) for _, y in lines.values() if y), default=1.0) or 1.0
