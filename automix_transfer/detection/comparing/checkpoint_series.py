"""Several checkpoints of one detector, evaluated one after another: how good it was after which iteration.

``checkpoints.json`` in OUTPUT_DIR keeps every evaluation with the SHA-256 of its weights file and a digest of
all that an evaluation depends on, so none is made twice. ``checkpoints.csv`` has a row for each checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from automix_transfer.config import flatten
from automix_transfer.detection.config_files import logger
from automix_transfer.detection.engine import Trainer
from automix_transfer.detection.resuming.agreement import owning, refuse_differences
from automix_transfer.detection.scores.results import HEADLINE, aligned, csv_cell, percent, summarize
from automix_transfer.detection.scores.validation_loss import TOTAL, validation_losses
from automix_transfer.detection.trainer import set_up
from automix_transfer.detection.weights.weights_check import load_weights
from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, read_json, sha256_of, write_json, write_text
from automix_transfer.shown import csv_text

STEM = "checkpoints"
#: what an evaluation depends on, beside the images; and what of it does not matter
SECTIONS, NOT_OF_IT = ("MODEL.", "INPUT.", "TEST.", "SEED"), ("MODEL.WEIGHTS", "TEST.EVAL_PERIOD")

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


def take_checkpoints(options: Namespace) -> None:
    """Make of --checkpoints files and the config that belongs to them, in ``options``.

    KEY VALUE pairs may follow the files. Without --config-file it is the config.yaml beside the first, whose
    folder is then also OUTPUT_DIR.

    Raises:
        UserError: other options that contradict it; nothing that opens.
    """
    words = options.checkpoints
    first = next((n for n, word in enumerate(words) if KEY.fullmatch(word) and not Path(word).exists()), None)
    if first is not None:
        words, options.opts = words[:first], [*words[first:], *options.opts]
    if not options.eval_only or options.resume:
        raise UserError("--checkpoints goes with --eval-only, and without --resume")
    if "MODEL.WEIGHTS" in options.opts[::2]:
        raise UserError("--checkpoints and MODEL.WEIGHTS both name weights; leave MODEL.WEIGHTS out")
    options.checkpoints = find_checkpoints(words)
    if not options.checkpoints:
        raise UserError("--checkpoints names no file; give files such as runs/x/model_*.pth")
    weights = first_that_opens(options.checkpoints)
    given = ["MODEL.WEIGHTS", weights]
    if not options.config_file:
        folder = Path(weights).parent
        if not (folder / "config.yaml").is_file():
            raise UserError(f"{folder} holds no config.yaml; give --config-file")
        options.config_file = str(folder / "config.yaml")
        given += [] if "OUTPUT_DIR" in options.opts[::2] else ["OUTPUT_DIR", str(folder)]
    options.opts = [*options.opts, *given]


def find_checkpoints(given: Sequence[str]) -> list[str]:
    """Files, patterns, and for a run's folder its numbered checkpoints and the last; each once.

    Raises:
        UserError: a pattern or a folder without any.
    """
    found: list[str] = []
    for word in given:
        files = [word]
        if Path(word).is_dir():
            files = [str(file) for file in sorted(Path(word).glob("model_[0-9f]*.pth"))]
        elif not Path(word).exists() and any(sign in word for sign in "*?["):
            files = sorted(glob(word))
        if not files:
            raise UserError(f"--checkpoints {word} is no checkpoint; give files such as runs/x/model_*.pth")
        found += files
    return list(dict.fromkeys(found))


def first_that_opens(files: Sequence[str]) -> str:
    """The first file of weights, by which a config is made; a `UserError` of the first file where none is."""
    problems: list[UserError] = []
    for file in files:
        try:
            if not file.endswith((".pth", ".pt")):
                raise UserError(f"--checkpoints {file} is no detector; give model_*.pth of a run")
            load_torch(file)
            return file
        except UserError as error:
            problems.append(error)
    raise problems[0]


def evaluate_each(cfg: CfgNode, arguments: Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate ``arguments.checkpoints`` on ``DATASETS.TEST``; returns a row for each, by iteration, and a
    sentence for each that is no detector of this config. Both are written into OUTPUT_DIR as they come.

    A row is what `summarize` gives, with ``file`` and ``sha256``.

    Raises:
        UserError: none of them could be evaluated; another process writes into OUTPUT_DIR.
    """
    with owning(cfg.OUTPUT_DIR, lambda: None):
        refuse_differences(cfg)
        set_up(cfg, arguments)
        settings = _digest(cfg, arguments.coco_evaluator)
        known = comm.all_gather(_known(cfg.OUTPUT_DIR, settings))[0]
        model, rows, problems = Trainer.build_model(cfg), list[dict[str, Any]](), list[str]()
        for number, file in enumerate(arguments.checkpoints, 1):
            try:
                row = _evaluate(cfg, model, file, known)
                rows.append(row)
                figures = "  ".join(f"{key} {percent(row[key])}" for key in HEADLINE)
                logger.info(f"{number} of {len(arguments.checkpoints)} checkpoints: {file}: {figures}")
            except _Unfit as error:
                problems.append(str(error))
                logger.warning(f"left out: {error}")
            rows.sort(key=lambda row: (row["iterations"] is None, row["iterations"] or 0))
            if comm.is_main_process():
                _write(cfg.OUTPUT_DIR, settings, rows, problems, known)
    if not rows and problems:
        raise UserError(f"none of the checkpoints could be evaluated (the first: {problems[0]})")
    if comm.is_main_process() and rows:
        logger.info(f"{STEM}.csv and {STEM}.json in {cfg.OUTPUT_DIR}\n\n{table(rows)}\n")
    return rows, problems


class _Unfit(Exception):
    """A file that is no detector of this config."""


def _evaluate(cfg: CfgNode, model: Any, file: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The row of a checkpoint, the same in every process; it is among ``known`` then.

    Raises:
        _Unfit: in every process: one cannot load the file.
    """
    problem = digest = ""
    report = None
    try:
        digest = sha256_of(file)
        if digest not in known:
            report = load_weights(model, file, cfg.MODEL.BACKBONE.NAME)
            if report.part != "detector":
                problem = f"{file} holds a backbone, not a trained detector; give model_*.pth of a run"
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{file} cannot be read ({error.strerror})"
    if problem := next(filter(None, comm.all_gather(problem)), ""):
        raise _Unfit(problem)
    if digest in known:
        logger.info(f"{file} is evaluated already")
        return {**known[digest], "file": file}
    assert report is not None
    measured = Trainer.test(cfg, model)
    losses = validation_losses(cfg, model, Trainer.stop) if cfg.TEST.LOSS else {}
    row = summarize(cfg, measured, str(report), report.iterations, losses)
    row = {"file": file, "sha256": digest, **row, "weights": file}
    # the last numbered checkpoint and model_final.pth may be the same bytes
    known[digest] = comm.all_gather(row)[0]
    return known[digest]


def _digest(cfg: CfgNode, evaluator: str) -> str:
    """Of the settings, the images by name and size, the boxes and the versions."""
    found = {
        key: value for key, value in flatten(cfg).items() if key.startswith(SECTIONS) and key not in NOT_OF_IT
    }
    about = [detectron2.__version__, evaluator, found]
    content = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name in cfg.DATASETS.TEST:
        if file := MetadataCatalog.get(name).get("json_file"):
            content.update(sha256_of(file).encode())
        for record in DatasetCatalog.get(name):
            image = Path(record["file_name"])
            line = [image.name, image.stat().st_size, {**record, "file_name": ""}]
            content.update(json.dumps(line, sort_keys=True, default=str).encode(errors="replace"))
    return content.hexdigest()


def _known(folder: str, settings: str) -> dict[str, dict[str, Any]]:
    """What checkpoints.json has of these settings, by the hash of the weights; nothing of a file that is not
    ours."""
    file = Path(folder) / f"{STEM}.json"
    try:
        content = read_json(file) if file.is_file() else {}
        rows = [*content["checkpoints"], *content["others"]] if content.get("settings") == settings else []
        return {row["sha256"]: row for row in rows if {"iterations", *HEADLINE} <= row.keys()}
    except (UserError, LookupError, TypeError, AttributeError):
        return {}


def _write(
    folder: str,
    settings: str,
    rows: Sequence[Mapping[str, Any]],
    problems: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
) -> None:
    shown = {row["sha256"] for row in rows}
    others = [row for digest, row in known.items() if digest not in shown]
    content = {"settings": settings, "problems": problems, "checkpoints": rows, "others": others}
    write_json(Path(folder) / f"{STEM}.json", content)
    lines: list[list[Any]] = [["file", "iterations", *HEADLINE, TOTAL, "sha256"]]
    for row in rows:
        figures = (*(row[key] for key in HEADLINE), row.get("losses", {}).get(TOTAL))
        lines.append([row["file"], row["iterations"], *map(csv_cell, figures), row["sha256"]])
    write_text(Path(folder) / f"{STEM}.csv", csv_text(lines))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each checkpoint, by iteration, and the best."""
    with_loss = any("losses" in row for row in rows)
    lines = [
        [
            Path(row["file"]).name,
            "–" if row["iterations"] is None else f"{row['iterations']:,}",
            *(percent(row[key]) for key in HEADLINE),
            *([f"{row['losses'][TOTAL]:.4g}" if row.get("losses") else "–"] if with_loss else []),
        ]
        for row in rows
    ]
    head = ["checkpoint", "iterations", *HEADLINE, *([TOTAL] if with_loss else [])]
    one = rows[0]
    about = f"{one['detector']} on {one['data']} ({one['rule']}), percent"
    measured = [row for row in rows if row["AP"] is not None]
    best = max(measured, key=lambda row: row["AP"], default=None)
    chosen = f"; the highest AP is that of {Path(best['file']).name}" if best else ""
    return f"{aligned(head, lines)}\n{about}{chosen}"
