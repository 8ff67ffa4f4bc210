"""The report: one HTML file with everything inside, from a folder of runs. What is there is shown, what is not is said."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from automix_transfer import __version__
from automix_transfer.errors import UserError
from automix_transfer.io import write_text
from automix_transfer.report import chain
from automix_transfer.report.embed import Embedder, Picture
from automix_transfer.report.runs import read_optional, read_run

#: figure -> its heading; in this order, wherever they exist
FIGURES = {"methods": "The same pairs under every method", "by_lambda": "AutoMix from image j to image i",
           "curves": "Learning curves", "mixed_accuracy": "Are both images recognised?", "masks": "Is the Mix Block alive?",
           "cams": "Class activation maps", "detections": "Detections"}
FRAME = "by_lambda_"  # + λ in percent + .png
RUN_FILES = ("run.json", "metrics.json", "log.csv")
DETECTOR_FILES = ("last_checkpoint", "model_final.pth")  # of a run of Detectron2, whose figures stand in the tables


@dataclass
class Figure:
    """A picture of ``figures/`` with its heading and sentence."""

    name: str
    heading: str
    caption: str
    picture: Picture


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of ``folder`` to ``output`` (default: ``folder/report.html``), atomically, and return its path.

    Raises:
        UserError: ``folder`` does not exist or holds nothing that a report could show; ``output`` cannot be written.
    """
    folder = Path(folder)
    output = Path(output) if output is not None else folder / "report.html"
    content = gather(folder)
    write_text(output, template().render(content))
    return output


def template() -> Template:
    """The page's template."""
    return environment().get_template("page.html.j2")


@cache
def environment() -> Environment:
    """Where the pages' templates and their filters are; templates are compiled once a process."""
    found = Environment(loader=PackageLoader("automix_transfer", "report"), autoescape=select_autoescape(["html", "j2"]),
                        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"percent": chain.percent, "signed": partial(chain.percent, signed=True), "method": chain.method_name,
                        "clock": clock, "anchor": anchor, "compact": compact}
    return found


def gather(folder: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder; give the folder of a demo or of a run, e.g. runs/demo")
    missing: list[str] = []
    embedder = Embedder(missing)
    summary_file = folder / "summary.json"
    summary: dict[str, Any] = {}
    if summary_file.exists():
        summary = read_optional(summary_file, missing)
        missing += chain.missing(summary) if summary else []
    runs = [read_run(path) for path in run_folders(folder)]
    detections = {path.parent.name: read_optional(path, missing) for path in sorted(folder.glob("detection/*/results.json"))}
    wsol = {path.stem: read_optional(path, missing) for path in sorted(folder.glob("wsol/*.json"))}
    proofs = {path.name: read_optional(path, missing) for path in sorted(folder.glob("export/*.proof.json"))}
    if not (summary or runs or detections or wsol or proofs or any(folder.glob("figures/*.png"))):
        raise UserError(f"{folder} holds no run, summary.json or figures, so there is nothing to report; "
                        "give the folder of a demo or of a run")
    if not summary_file.exists():
        missing.append(f"{summary_file} does not exist, so there are no tables of the chain: it is written when the demo has finished")
    if not proofs:
        missing.append(f"{folder / 'export'} has no proof of an export")

    frames, figures = _figures(folder / "figures", embedder, missing, chain_expected=bool(summary))
    pictures = {run.path: [(path.stem.replace("_", " "), embedder.embed(path)) for path in _few(run.pictures)] for run in runs}
    plots = [(path.stem, embedder.embed(path)) for path in sorted(folder.glob("wsol/*.png"))]
    missing += [problem for run in runs for problem in run.problems]
    if not (summary.get("commit") or len({run.commit for run in runs if run.commit}) == 1):
        silent = sorted([*folder.glob("detection/*/results.json"), *folder.glob("wsol/*.json")])
        missing += [f"{path} names no commit of its own" for path in silent]
    start = next((run.start for run in reversed(runs) if run.start), {})
    versions = summary.get("versions") if isinstance(summary.get("versions"), dict) else start.get("packages")
    names = {run.path: _relative(run.path, folder) for run in runs}
    # A file without a commit of its own has that of the chain, where the summary or all runs agree on one
    commits = {run.commit for run in runs if run.commit}
    commit = str(summary.get("commit") or "")[:10] or (commits.pop() if len(commits) == 1 else "")
    return {
        "title": folder.resolve().name, "folder": str(folder), "version": __version__, "written": time.strftime("%Y-%m-%d %H:%M"),
        "summary": summary, "pretrained": chain.pretrained(summary), "comparisons": chain.comparisons(summary), "commit": commit,
        "device": str(start.get("device") or ""), "figures": figures, "frames": frames, "runs": runs, "pictures": pictures, "plots": plots,
        "names": names, "commit_of": {names[run.path]: run.commit for run in runs},
        "anchors": {*names.values(), *(f"detection/{name}" for name in detections), *(f"wsol/{name}.json" for name in wsol)},
        "detections": detections, "wsol": wsol, "proofs": proofs, "missing": _unique(_relative_text(m, folder) for m in missing),
        "notes": [str(note) for note in summary.get("notes") or []] if isinstance(summary.get("notes") or [], list) else [],
        "seconds": {key: value for key, value in (summary.get("seconds") or {}).items() if chain.number(value) is not None}
        if isinstance(summary.get("seconds"), dict) else {},
        "settings": summary.get("settings") if isinstance(summary.get("settings"), dict) else {},
        "versions": versions if isinstance(versions, dict) else {},
    }


def run_folders(folder: Path) -> list[Path]:
    """Folders of runs of `training` in ``folder``, itself included, at most two levels down, without detectors; in the chain's order."""
    candidates = [folder, *folder.glob("*/"), *folder.glob("*/*/")]
    found = [path for path in candidates if any((path / name).is_file() for name in RUN_FILES)
             and not any((path / name).exists() for name in DETECTOR_FILES)]
    order = ("pretrain", "finegrained", "vanilla", "mixup", "cutmix", "automix")

    def place(path: Path) -> tuple[Any, ...]:
        return tuple((order.index(part) if part in order else len(order), part) for part in path.relative_to(folder).parts)

    return sorted(found, key=place)


def _figures(folder: Path, embedder: Embedder, missing: list[str],
             chain_expected: bool) -> tuple[list[tuple[float, Picture]], list[Figure]]:
    captions = read_optional(folder / "captions.json", []) if (folder / "captions.json").exists() else {}
    files = {path.stem: path for path in sorted(folder.glob("*.png"))}
    steps = {name: int(name.removeprefix(FRAME)) for name in files if name.startswith(FRAME) and name.removeprefix(FRAME).isdigit()}
    frames = [(steps[name] / 100, picture) for name in sorted(steps, key=lambda n: steps[n]) if (picture := embedder.embed(files[name]))]
    figures = []
    for name in [*FIGURES, *(name for name in files if name not in FIGURES and name not in steps)]:
        if name in files:
            if picture := embedder.embed(files[name]):
                heading = FIGURES.get(name, name.replace("_", " ").capitalize())
                figures.append(Figure(name, heading, str(captions.get(name, "")), picture))
        elif chain_expected and name != "by_lambda":
            missing.append(f"{folder / name}.png does not exist")
    if chain_expected and not frames:
        missing.append(f"{folder} has no {FRAME}000.png and so on, so there is no slider")
    return frames, figures


def clock(seconds: Any) -> str:
    """Seconds for people."""
    value = chain.number(seconds)
    if value is None:
        return "–"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s" if minutes else f"{value:.1f} s"


def anchor(name: Any) -> str:
    """A name as an HTML id."""
    return "run-" + "".join(c if c.isalnum() else "-" for c in str(name))


def compact(value: Any) -> str:
    """A value of a JSON file on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _few(pictures: list[Path], count: int = 3) -> list[Path]:
    """The last pictures of a run: hundreds would fill the page."""
    return pictures[-count:]


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else path.resolve().name


def _relative_text(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")


def _unique(sentences: Any) -> list[str]:
    return list(dict.fromkeys(sentences))
