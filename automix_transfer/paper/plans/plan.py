"""The runs that a table or an ablation needs: a training for each cell and trial, and what is measured on it
afterwards.

Nothing here runs anything: `planned` turns cells into `PlannedRun`, each a list of commands as a user would
type them, with the file that proves each done. `Scale` shrinks epochs and data by stated factors; `matching`
sees that in the run's own settings and marks it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from automix_transfer.command_line import command, typed
from automix_transfer.errors import UserError
from automix_transfer.jobs import Job
from automix_transfer.paper import published as paper
from automix_transfer.paper.catalogue import catalogue
from automix_transfer.paper.measured import SCHEDULES
from automix_transfer.paper.plans.scale import Scale
from automix_transfer.paper.published import Cell, PaperTable
from automix_transfer.paper.references import Reference
from automix_transfer.paper.tables import name_of
from automix_transfer.recipes.find import RECIPES
from automix_transfer.runs.folder import is_number, read_optional

UNKNOWN_WEIGHTS = "WEIGHTS_"  # begins the name that stands for a file that --weights did not give
DETECTORS = {"VOC": "voc_R50_C4_24k", "COCO": "coco_R50_C4_2x"}


@dataclass
class PlannedRun:
    """One training, of one seed, with what is measured on it; ``cells`` are named in words."""

    name: str
    reference: Reference
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    steps: list[Job]
    cells: list[str]
    state: str = "to do"  # or done, damaged, trained otherwise, or how far it is
    faults: list[str] = field(default_factory=list)  # why what is there cannot be gone on with
    hours: float | None = None  # of what is left of the training, on this machine

    @property
    def done(self) -> bool:
        return all(step.done for step in self.steps)


@dataclass
class Settings:
    """What the user chose for all runs of a plan.

    Attributes:
        data_roots: a folder by data set, under the empty name for all.
        weights: files that trainings start from: by encoder for fine-tuning, and ``teacher`` for
            AttentiveMix.
        launcher: what starts a training, e.g. torchrun with its arguments; empty: this Python.
        known: folders of finished trainings that are the paper's, by training and seed, wherever they lie.
    """

    output: Path = Path("runs")
    trials: int = 3
    scale: Scale = field(default_factory=Scale)
    data_roots: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    corrupted: str = ""
    num_gpus: int = 0
    known: Mapping[tuple[Any, int | None], Path] = field(default_factory=dict)


@dataclass
class Plan:
    """``without``: cells that no recipe serves; ``roots_missing``, ``weights_missing``: what no --data.root
    or --weights was given for."""

    runs: list[PlannedRun]
    without: list[str]
    roots_missing: list[str]
    weights_missing: list[str]


def planned(tables: Sequence[PaperTable], settings: Settings, only: Sequence[str] = ()) -> Plan:
    """The runs of all cells of ``tables`` that have every word of ``only`` (a word may be alternatives:
    ``mixup,automix``)."""
    runs: dict[tuple[Any, ...], PlannedRun] = {}
    without: list[str] = []
    roots_missing: dict[str, None] = {}
    weights_missing: dict[str, None] = {}
    cells = [
        (table, cell)
        for table in tables
        for cell in table
        if cell.value is not None or table.name.startswith("fig")
    ]
    chosen = [(table, cell) for table, cell in cells if all(_matches(cell, word) for word in only)]
    if only and not chosen:
        raise UserError(
            f"no cell of {', '.join(table.name for table in tables)} has {' and '.join(only)}; write words "
            "of its heads, e.g. "
            "--only CIFAR-100 R-18 mixup,automix"
        )
    for table, cell in chosen:
        reference = _reference(cell)
        if reference is None:
            without.append(f"{table.title}, {name_of(cell, table)}")
            continue
        root = _root(reference, settings.data_roots)
        if root is None:
            roots_missing[_data_name(reference)] = None
        weights_missing |= {
            name: None for name in _weights(reference) if name.lower() not in settings.weights
        }
        for seed in range(settings.trials):
            key = (reference.key, seed)
            if key not in runs:
                runs[key] = _training(reference, seed, settings, root)
            run = runs[key]
            run.cells.append(f"{table.title}, {name_of(cell, table)}")
            known = {step.name for step in run.steps}
            run.steps += [step for step in _measurements(cell, run, settings) if step.name not in known]
    return Plan(list(runs.values()), without, list(roots_missing), list(weights_missing))


def _matches(cell: Cell, word: str) -> bool:
    return any(paper.has(cell, part) for part in word.split(",") if part.strip())


def _reference(cell: Cell) -> Reference | None:
    """The training of a cell; detection's backbones are those of Table 2 at 100 epochs."""
    attributes = cell.attributes
    if cell.table == "table7":
        attributes = {
            "data": "ImageNet-1k",
            "encoder": "R-50",
            "procedure": "PyTorch",
            "epochs": 100,
            "method": attributes["method"],
        }
    return catalogue().of(attributes)


def _training(reference: Reference, seed: int, settings: Settings, root: str | None) -> PlannedRun:
    variant = str(reference.attributes.get("variant", ""))
    length = "".join(
        f"_{value.split('=')[1]}e" for value in reference.overrides if value.startswith("train.epochs=")
    )
    stem = reference.recipe.stem
    # MixUp's recipe by another method
    if any(override.startswith("method.name=") for override in reference.overrides):
        stem = stem.replace("mixup", reference.attributes["method"])
    name = (
        stem
        + length
        + (f"_{re.sub(r'[^a-z0-9.]+', '_', variant.lower())}" if variant else "")
        + settings.scale.suffix
    )
    there = (
        settings.known.get((reference.key, seed))
        if settings.scale == Scale() and not settings.overrides
        else None
    )
    folder = there or settings.output / name / f"seed{seed}"
    weights = [
        f"{key}={settings.weights.get(name.lower(), UNKNOWN_WEIGHTS + name.upper())}"
        for name, key in _weights(reference).items()
    ]
    overrides = (*reference.overrides, *settings.scale.overrides(reference), *weights, *settings.overrides)
    place = root or f"DATA_{_data_name(reference).upper()}"
    given = (f"data.root={place}", f"seed={seed}", f"output={folder}", *overrides)
    training = [*settings.launcher, *train_command(reference.recipe, *given)]
    if settings.launcher and Path(settings.launcher[0]).name == "torchrun":
        training.insert(len(settings.launcher), "--no-python")
    step = Job("train", training, folder / "metrics.json")
    return PlannedRun(name, reference, seed, folder, overrides, [step], [])


def train_command(recipe: Path, *overrides: str) -> list[str]:
    """What trains by a recipe, named as briefly as possible."""
    name = "finetune" if recipe.parent.name == "finegrained" else "pretrain"
    short = recipe.stem if recipe.is_relative_to(RECIPES) else str(recipe)
    return command(name, "--resume", "--config-file", short, *overrides)


def _measurements(cell: Cell, run: PlannedRun, settings: Settings) -> list[Job]:
    """What is measured on a training for a cell."""
    metric, folder, checkpoint = cell.attributes["metric"], run.folder, run.folder / "last.pt"
    if metric in ("corruption", "fgsm_error"):
        result = folder / "evaluation.json"
        more = ["--corrupted", settings.corrupted] if settings.corrupted else []
        evaluate = _command("evaluate", *more, run=folder, suite="clean,corruption,fgsm", output=result)
        return [Job("evaluate", evaluate, result, proves=partial(_robustness, corrupted=settings.corrupted))]
    if metric == "maxboxacc":
        result = folder / "wsol.json"
        roots = (part.partition("=")[2] for part in run.steps[0].command if part.startswith("data.root="))
        localize = _command("localize", dataset="cub", root=next(roots), checkpoint=checkpoint, output=result)
        return [Job("localize", localize, result)]
    if cell.table == "table7":
        data, weights = cell.attributes["data"], folder / "backbone.pkl"
        export = _command("export", checkpoint=checkpoint, to="detectron2", output=weights)
        detect = (
            *_command("detect", "--resume", config_file=DETECTORS[data], num_gpus=settings.num_gpus),
            *("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(folder / f"detection_{data.lower()}")),
            *("SEED", str(run.seed + 1), *_iterations(data, settings.scale)),
        )
        return [
            Job("export", export, weights),
            Job(f"detect {data}", detect, folder / f"detection_{data.lower()}" / "results.json"),
        ]
    return []


def _command(name: str, *words: str, **options: Any) -> list[str]:
    """Our command ``name`` with ``words``, and ``--name value`` for each option."""
    pairs = (word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value)))
    return command(name, *words, *pairs)


def _robustness(file: Path, corrupted: str = "") -> bool:
    """Whether an evaluation holds Table 6's figures; it may have been of other parts, or on other corruptions
    than ``corrupted``."""
    content = read_optional(file, []) if file.is_file() else {}
    made = content.get("corruption_made")
    return all(is_number(content.get(key)) for key in ("corruption_top1_19", "fgsm_error")) and (
        not corrupted or (isinstance(made, str) and Path(made) == Path(corrupted))
    )


def _iterations(data: str, scale: Scale) -> list[str]:
    """A detector's schedule, shrunk as the epochs are."""
    if scale.epochs == 1:
        return []
    whole, shares = SCHEDULES[data][1], {"VOC": (0.75, 11 / 12), "COCO": (2 / 3, 8 / 9)}[data]
    fewer = max(10, round(whole * scale.epochs))
    return [
        "SOLVER.MAX_ITER",
        str(fewer),
        "SOLVER.STEPS",
        str(tuple(round(share * fewer) for share in shares)),
    ]


def _root(reference: Reference, roots: Mapping[str, str]) -> str | None:
    """The folder of a data set: by its name, the paper's or the layout's, or what was given for all."""
    names = (
        _data_name(reference),
        str(reference.attributes["data"]).lower(),
        str(reference.config["data.dataset"]).lower(),
    )
    return next((roots[name] for name in (*names, "") if name in roots), None)


def _weights(reference: Reference) -> dict[str, str]:
    """The files that a training starts from: what --weights calls each, and the setting that names it."""
    needed = (
        {str(reference.attributes["encoder"]): "encoder.weights"}
        if reference.attributes["procedure"] == "fine-tuning"
        else {}
    )
    return {
        **needed,
        **({"teacher": "method.teacher_weights"} if reference.attributes["method"] == "attentivemix" else {}),
    }


def _data_name(reference: Reference) -> str:
    """What --data.root calls a data set: its layout's name, and ``imagenet`` for folders."""
    layout = str(reference.config["data.dataset"])
    return "imagenet" if layout == "imagefolder" else layout


def line_of(run: PlannedRun, form: Callable[[Sequence[str]], Sequence[str]] = typed) -> str:
    """The commands of what is left of a run on one line, for a person; with ``form`` list for a machine."""
    return " && ".join(shlex.join(form(step.command)) for step in run.steps if not step.done)
