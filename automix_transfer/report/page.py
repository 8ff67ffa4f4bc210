"""The report: one HTML file with everything inside, from folders of runs. What is there is shown, what is not
is said."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automix_transfer import __version__
from automix_transfer.errors import UserError
from automix_transfer.io import write_text
from automix_transfer.report import html, sections
from automix_transfer.report.curves import curve_data, first_plot, gather_curves
from automix_transfer.report.embed import Embedder
from automix_transfer.report.gallery import gallery, plots_beside, run_pictures, slider_views
from automix_transfer.runs.collect import File, Found, collect
from automix_transfer.runs.folder import RunFolder, commit_of, differences, is_number, read_run
from automix_transfer.transfer import chain
from automix_transfer.transfer.transfer_settings import TASKS

#: runs whose config, command and pictures are folded out; of further ones the table says what they differ in
DETAILS = 40
LONG = 30  #: rows from which a table gets pages and a filter
RENDERED = 1  #: runs of AutoMix whose λ slider is drawn here, where no command has drawn one


@dataclass
class Row:
    """A run of the table: ``differs`` is what its config has that most others have not."""

    name: str
    run: RunFolder
    method: str
    differs: list[str]
    speed: float | None
    pictures: list[Any] = field(default_factory=list)


@dataclass
class Chain:
    """A demo's ``summary.json`` with its table; ``prefix`` leads from the page's folder to the chain's."""

    prefix: str
    pretrained: list[chain.Pretrained]
    notes: list[str]
    seconds: dict[str, float]
    settings: dict[str, Any]
    versions: dict[str, Any]
    commit: str
    missing: list[str]

    @property
    def own(self) -> chain.Pretrained | None:
        """AutoMix's row."""
        return next((row for row in self.pretrained if row.method == "automix"), None)


def build(
    folders: str | Path | Sequence[str | Path], output: str | Path | None = None, render: bool = True
) -> Path:
    """Write the report of ``folders`` to ``output`` (default: ``report.html`` in the first), atomically, and
    return its path.

    Args:
        folders: of a demo, of runs, of results; one or several.
        render: whether mixed samples are drawn for runs of AutoMix that have no λ slider yet (seconds for
            each, `RENDERED` at most).

    Raises:
        UserError: a folder does not exist, none holds anything that a report could show, or ``output`` cannot
            be written.
    """
    paths = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
    output = Path(output) if output is not None else paths[0] / "report.html"
    write_text(output, html.page("page.html.j2", gather(paths, render)))
    return output


def gather(folders: Sequence[Path], render: bool = True) -> dict[str, Any]:
    """Everything that the template shows, section by section."""
    found = collect(folders)
    if found.empty and not found.problems:
        raise UserError(
            f"{', '.join(map(str, folders))} holds no run, result or figure of ours, so there is nothing to "
            "report; give the folder of a demo or of a run"
        )
    rows = run_rows(found)
    chains = found.read("summary", lambda file: _chain(file, found))
    embedder = Embedder(found.problems)
    content = {"rows": rows, "details": rows[:DETAILS], "long": LONG, "chains": chains}
    content |= _head(found, rows, chains)
    content |= _evaluations(found, embedder)
    content |= _mixes(found, embedder, rows, render)
    content |= _curves(found, rows)
    content |= _pictures(found, embedder, rows, expected=bool(chains))
    content |= _files(found, rows)
    found.problems += [problem for one in chains for problem in one.missing]
    found.problems += [problem for row in rows for problem in row.run.problems]
    content |= _provenance(content, found)
    return content | {"missing": list(dict.fromkeys(_short(text, found) for text in found.problems))}


def _head(found: Found, rows: Sequence[Row], chains: Sequence[Chain]) -> dict[str, Any]:
    """What the page is of, and what made it."""
    start = next((row.run.start for row in reversed(rows) if row.run.start), {})
    commits = {row.run.commit for row in rows} | {one.commit for one in chains}
    one_folder = len(found.folders) == 1
    return {
        "folders": [str(folder) for folder in found.folders],
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "title": found.folders[0].resolve().name if one_folder else f"{len(found.folders)} folders",
        "commits": sorted(commits - {""}),
        "device": str(start.get("device") or ""),
        "versions": next((one.versions for one in chains if one.versions), _dict(start.get("packages"))),
    }


def _evaluations(found: Found, embedder: Embedder) -> dict[str, Any]:
    """Robustness and calibration, and the classes that are confused."""
    labels = sections.labels([file.name for file in found.of("evaluation")])
    evaluated = found.read("evaluation", lambda file: sections.evaluation(file, labels[file.name]))
    evaluated = [one for one in evaluated if one.values]
    return {
        "evaluated": evaluated,
        "measures": sections.measures_of(evaluated),
        "reliability": sections.reliability_plot(evaluated),
        "severity": sections.severity_plot(evaluated),
        "corruptions": sections.corruption_rows([one for one in evaluated if one.corruption]),
        "confused": found.read("confusion", sections.confusion_reader(embedder)),
    }


def _mixes(found: Found, embedder: Embedder, rows: Sequence[Row], render: bool) -> dict[str, Any]:
    """Mixed samples: the λ slider, and what networks see in them."""
    automix = [row.run.path for row in rows if row.method == "automix"][:RENDERED] if render else []
    return {
        "sliders": slider_views(found, embedder, automix),
        "mixed": found.read("mixed", lambda file: (file, sections.mixed_plots(file))),
    }


def _curves(found: Found, rows: Sequence[Row]) -> dict[str, Any]:
    """Learning curves of runs and detectors."""
    runs = [(row.name, row.run) for row in rows]
    detectors = [(found.name(path), path) for path in found.detectors]
    curves = curve_data(gather_curves(runs, detectors, found.problems), found.problems)
    return {"curves": curves, "static": first_plot(curves)}


def _pictures(found: Found, embedder: Embedder, rows: Sequence[Row], expected: bool) -> dict[str, Any]:
    """Figures, plots beside results, and the pictures of runs."""
    figures = gallery(found, embedder, expected)
    thresholds = plots_beside(found.of("localization"), embedder)
    for row in rows[:DETAILS]:
        row.pictures = run_pictures(row.run.path, embedder)
    return {"figures": figures, "thresholds": thresholds}


def _files(found: Found, rows: Sequence[Row]) -> dict[str, Any]:
    """What other commands wrote: timings, comparisons, detections, localizations and proofs."""
    proofs = found.of("proof")
    ranked = sorted(proofs, key=lambda file: file.content.get("kind") != "detectron2")
    return {
        "steps": found.read("steps", lambda file: (file, sections.step_rows(file))),
        "speeds": [row for row in rows if row.speed is not None],
        "answers": found.read("answer", sections.answer),
        "task_titles": {name: task.title for name, task in TASKS.items()},
        "compared": found.read("comparison", lambda file: (file, sections.comparison_rows(file))),
        "detections": found.of("detection"),
        "localizations": found.of("localization"),
        "proofs": proofs,
        "proof": ranked[0].content if ranked else None,
        # what the table's differences refer to, where not all runs are folded out
        "common": next((row.run.config for row in rows if row.run.config), "") if len(rows) > DETAILS else "",
    }


def run_rows(found: Found) -> list[Row]:
    """The table of runs, in the chain's order."""
    runs = [read_run(path) for path in found.runs]
    rows = []
    for run, differs in zip(runs, differences([run.config for run in runs]), strict=True):
        speeds = [row["images_per_s"] for row in run.history if "images_per_s" in row]
        shown = [f"{key} {value}" for key, value in differs.items()]
        speed = statistics.median_high(speeds) if speeds else None
        rows.append(Row(found.name(run.path), run, run.settings.get("method.name", ""), shown, speed))
    return rows


def _chain(file: File, found: Found) -> Chain:
    content = file.content
    inside = file.path.parent not in found.folders or len(found.folders) > 1
    prefix = f"{found.name(file.path.parent)}/" if inside else ""
    seconds = content.get("seconds", {}).items()
    return Chain(
        prefix,
        chain.pretrained(content),
        [str(note) for note in content.get("notes", [])],
        {key: value for key, value in seconds if is_number(value)},
        dict(content.get("settings", {})),
        dict(content.get("versions", {})),
        commit_of(content),
        [f"{prefix}{text}" for text in chain.missing(content)],
    )


def _provenance(content: dict[str, Any], found: Found) -> dict[str, Any]:
    """Where a number comes from: names that have a place on the page, and the commit of each."""
    commits = {row.name: row.run.commit for row in content["rows"]}
    anchors = {row.name for row in content["details"]} | {one.file.name for one in content["evaluated"]}
    anchors |= {file.name for file in found.of("localization")}
    anchors |= {found.name(file.path.parent) for file in found.of("detection")}
    for one in content["chains"]:
        if not one.commit:  # what has no commit of its own has that of its chain's runs, where they agree
            inside = {commit for name, commit in commits.items() if commit and name.startswith(one.prefix)}
            one.commit = inside.pop() if len(inside) == 1 else ""
        if not one.commit:
            silent = [*found.of("detection"), *found.of("localization")]
            found.problems += [f"{file.path} names no commit of its own" for file in silent]
    measured = [*found.of("evaluation"), *found.of("confusion")]
    commits |= {file.name: commit_of(_dict(file.content.get("about"))) for file in measured}
    measured += found.of("localization")
    run_of = {file.name: _run_of(file, content["rows"]) for file in measured}
    return {"commit_of": commits, "anchors": anchors, "run_of": run_of}


def _run_of(file: File, rows: Sequence[Row]) -> str:
    """The run whose weights were measured, by the path that the file names or the folder that it lies in;
    empty if unknown."""
    about = _dict(file.content.get("about"))
    weights = str(file.content.get("checkpoint") or about.get("weights") or about.get("checkpoint") or "")
    for row in rows:
        inside = row.run.path in (file.path.parent, Path(weights).parent) or f"/{weights}".endswith(
            f"/{row.name}/{Path(weights).name}"
        )
        if inside and (weights or row.run.path == file.path.parent):
            return row.name
    return ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(text: str, found: Found) -> str:
    return text.replace(f"{found.folders[0]}/", "") if len(found.folders) == 1 else text
