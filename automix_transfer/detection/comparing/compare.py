"""Several backbones in one detector over several seeds: which runs there are, what is checked before the
first, and how they are started.

A comparison is a folder: ``runs/<row>/seed<k>`` are run folders of `automix-transfer detect`, each
started as a process of its own. A run whose ``results.json`` exists is done, and must have all its
iterations; one that was killed goes on from its last checkpoint. ``inputs.json`` in each says what it was
started with (the whole config and a digest of the weights), so that runs of different settings never stand in
one table.
"""

from __future__ import annotations

import hashlib
import json
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer import command_line
from automix_transfer.compared.named import folder_name, refuse_twins, split_name
from automix_transfer.config import flatten
from automix_transfer.detection.config import stated
from automix_transfer.detection.resuming.began import has_checkpoint
from automix_transfer.detection.trainer import arguments_of, check_weights, prepare
from automix_transfer.detection.weights.overlay import find_overlay
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json
from automix_transfer.jobs import Job, is_progress
from automix_transfer.owner import refuse_foreign

RANDOM = "random"
PLACES = {"OUTPUT_DIR", "MODEL.WEIGHTS", "SEED"}  #: keys in which runs of one comparison differ by design


@dataclass(frozen=True)
class Row:
    """A backbone: what the table calls it, and its file ('' trains from random weights)."""

    name: str
    weights: str

    @property
    def folder(self) -> str:
        return folder_name(self.name, "row")


@dataclass(frozen=True)
class Plan:
    """A comparison; see ``automix-transfer detect compare --help``."""

    output: Path
    config_file: Path
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    data_root: Path | None = None
    class_names: Path | None = None
    coco_evaluator: str = "pycocotools"
    num_gpus: int = 0
    overrides: tuple[str, ...] = ()

    def folder(self, row: Row, seed: int) -> Path:
        """The run folder of one cell."""
        return self.output / "runs" / row.folder / f"seed{seed}"


def parse_rows(values: Sequence[str]) -> tuple[Row, ...]:
    """``random``, ``file.pkl`` or ``name=file.pkl`` (and ``name=random``), in the table's order.

    Raises:
        UserError: a file that does not exist, or two rows of one name.
    """
    rows: list[Row] = []
    for value in values:
        name, file = split_name(value, Path.is_file, RANDOM if value == RANDOM else Path(value).stem)
        if not name or not file:
            raise UserError(f"--weights {value} must be NAME=FILE, FILE or {RANDOM}")
        if file != RANDOM and not Path(file).is_file():
            is_key = re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*", value)
            raise UserError(
                f"--weights {value}: {file} does not exist or is not a file; give a file of automix-transfer "
                f"export --to detectron2, or {RANDOM}"
                + ("; KEY VALUE overrides go last, behind another option" if is_key else "")
            )
        row = Row(name, "" if file == RANDOM else file)
        refuse_twins("--weights", "rows ", name, row.folder, [other.folder for other in rows], "FILE")
        rows.append(row)
    return tuple(rows)


def check(plan: Plan) -> dict[Path, dict[str, Any]]:
    """Find everything that can be wrong with any run; returns what each run folder is to be started with.

    Raises:
        UserError: what `trainer.prepare` and `check_weights` refuse, for any row; a run folder that was
            started with other settings.
    """
    inputs: dict[Path, dict[str, Any]] = {}
    for row in plan.rows:
        arguments = _arguments(plan, row)
        try:
            cfg = prepare(arguments)
            check_weights(cfg, arguments)
        except UserError as error:
            raise UserError(f"row '{row.name}': {error}") from error
        digest = _digest(row.weights)
        settings = {key: value for key, value in flatten(stated(cfg)).items() if key not in PLACES}
        settings = json.loads(json.dumps(settings))  # as the file gives them back: tuples as lists
        for seed in plan.seeds:
            folder = plan.folder(row, seed)
            inputs[folder] = {
                "row": row.name,
                "seed": seed,
                "weights": row.weights,
                "weights_sha256": digest,
                "config": settings,
            }
            _refuse_other_settings(folder, inputs[folder])
    return inputs


def refuse_others_answer(output: Path, folders: Iterable[Path]) -> None:
    """Raise a `UserError` where a file of somebody else has the name of one that is going to be written."""
    if not any((folder / "inputs.json").is_file() for folder in folders):
        names = (f"comparison.{end}" for end in ("txt", "md", "csv", "json"))
        for name in (*names, "runs.csv", "report.html"):
            refuse_foreign(output / name, lambda _: False, "file of a comparison")


def write_inputs(inputs: Mapping[Path, Mapping[str, Any]]) -> None:
    """Note in each run folder what it is started with; a check alone leaves nothing there."""
    for folder, content in inputs.items():
        write_json(folder / "inputs.json", content)


def jobs(plan: Plan) -> list[Job]:
    """A job for each run, seed by seed, so that an interrupted comparison has whole seeds."""
    return [
        Job(
            f"{row.folder} seed {seed}",
            command(plan, row, seed),
            plan.folder(row, seed) / "results.json",
            keep=is_progress,
        )
        for seed in plan.seeds
        for row in plan.rows
    ]


def command(plan: Plan, row: Row, seed: int) -> list[str]:
    """What a user would type for this run; with ``--resume`` where it was interrupted."""
    folder = plan.folder(row, seed)
    options = [
        ("--data-root", plan.data_root),
        ("--class-names", plan.class_names),
        ("--num-gpus", plan.num_gpus),
        ("--coco-evaluator", plan.coco_evaluator if plan.coco_evaluator != "pycocotools" else None),
    ]
    given = [str(part) for option, value in options if value is not None for part in (option, value)]
    resume = ["--resume"] if has_checkpoint(folder) else []
    return command_line.command(
        "detect", "--config-file", str(plan.config_file), *given, *resume, *_overrides(plan, row, seed)
    )


def differences(inputs: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """Config keys in which the rows differ, as their weights' overlays ask for: each with its values."""
    rows = {item["row"]: item["config"] for item in inputs.values()}
    first = next(iter(rows.values()))
    keys = [key for key in first if any(config.get(key) != first[key] for config in rows.values())]
    return [
        f"{key}: " + ", ".join(f"{name} {config.get(key)}" for name, config in rows.items()) for key in keys
    ]


def _overrides(plan: Plan, row: Row, seed: int) -> list[str]:
    return [
        *plan.overrides,
        "SEED",
        str(seed),
        "MODEL.WEIGHTS",
        row.weights,
        "OUTPUT_DIR",
        str(plan.folder(row, seed)),
    ]


def _arguments(plan: Plan, row: Row) -> Namespace:
    """Of the check, whose output folder is the comparison's own: the run folders may hold what was begun
    before."""
    for key in PLACES:
        if key in plan.overrides[::2]:
            raise UserError(
                f"{key} differs from run to run and is set by the comparison; leave it out of the overrides"
            )
    opts = [*_overrides(plan, row, plan.seeds[0])[:-1], str(plan.output)]
    arguments = arguments_of(plan.config_file, opts, plan.data_root, plan.num_gpus)
    arguments.class_names, arguments.coco_evaluator = plan.class_names, plan.coco_evaluator
    return arguments


def _digest(weights: str) -> str | None:
    """Of the file and its overlay."""
    if not weights:
        return None
    overlay = find_overlay(weights)
    content = hashlib.sha256()
    for file in (Path(weights), *([overlay] if overlay else [])):
        content.update(file.read_bytes())
    return content.hexdigest()


def _refuse_other_settings(folder: Path, wanted: Mapping[str, Any]) -> None:
    """A run that was begun must be one of this comparison, of the same weights and settings."""
    if not (folder / "results.json").exists() and not has_checkpoint(folder):
        return  # not begun, or killed before its first checkpoint: it starts from the beginning
    file, remedy = folder / "inputs.json", "choose another --output, or remove that folder to run it again"
    if not file.is_file():
        raise UserError(f"{folder} holds a run that this comparison did not start; choose another --output")
    before = read_json(file)
    if not isinstance(before, dict) or not isinstance(before.get("config"), dict):
        raise UserError(f"{file} does not say what {folder} was started with; {remedy}")
    if before.get("weights_sha256") != wanted["weights_sha256"]:
        raise UserError(
            f"{folder} was trained from other weights than {wanted['weights'] or RANDOM} holds now; {remedy}"
        )
    for key, value in wanted["config"].items():
        if (found := before["config"].get(key)) != value:
            raise UserError(f"{folder} was started with {key} {found}, but now it is {value}; {remedy}")
    _refuse_unfinished(folder / "results.json", wanted["config"])


def _refuse_unfinished(file: Path, config: Mapping[str, Any]) -> None:
    """A run that was gone on with by hand may have fewer or more iterations, and looks finished; one that
    `EarlyStop` ended is."""
    iterations = config["SOLVER.MAX_ITER"]
    results = read_json(file) if file.is_file() else {"iterations": iterations}
    found = results.get("iterations") if isinstance(results, dict) else None
    stop = results.get("stopped_early") if "SOLVER.PATIENCE" in config and found else None
    ended = isinstance(stop, dict) and (stop.get("iteration"), stop.get("max_iter")) == (found, iterations)
    if found != iterations and not ended:
        raise UserError(
            f"{file} has the figures of {found or 'an unknown number of'} iterations, but this comparison's "
            f"runs have {iterations}; remove the folder {file.parent} to run it again"
        )
