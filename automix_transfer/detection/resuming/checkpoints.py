"""A detector's checkpoints: never half-written, verified before ``last_checkpoint`` names them, read without
running code.

The files and their content are Detectron2's (``model_0004999.pth``, ``model_final.pth``,
``last_checkpoint``), with the optimizer's state in them, which release 0.6 leaves out. ``model_best.pth`` is
the best by one metric; ``best.json`` says which, and at which iteration.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from automix_transfer.detection.config_files import logger
from automix_transfer.detection.resuming.began import has_checkpoint
from automix_transfer.errors import UserError, few
from automix_transfer.host.writable import existing
from automix_transfer.io import load_torch, read_json, save_torch, temporary_name, write_json, write_text

BEST_FILE, BEST_RECORD = "model_best", "best.json"
LAST, FINAL = "last_checkpoint", "model_final.pth"


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer whose files are complete or absent.

    Attributes:
        newest: the last that this process wrote or went on from.
    """

    newest = ""

    def save(self, name: str, **extra: Any) -> None:
        """Write ``name``.pth beside the others, read it back, put it in place, and only then name it in
        ``last_checkpoint``."""
        if self.save_dir and self.save_to_disk:
            self.write(name, **extra)
            write_text(Path(self.save_dir) / LAST, f"{name}.pth")
        self.newest = name

    def write(self, name: str, **extra: Any) -> None:
        """`save` without naming it the last."""
        finite_or_refuse(self.model, extra.get("iteration", -1) + 1)
        parts = {key: item.state_dict() for key, item in self.checkpointables.items()}
        content = {"model": self.model.state_dict(), "processes": comm.get_world_size(), **parts, **extra}
        file = Path(self.save_dir) / f"{name}.pth"
        new = temporary_name(file)
        try:
            save_torch(new, content)
            read = load_torch(new)
            if read.keys() != content.keys() or read["model"].keys() != content["model"].keys():
                raise UserError(f"{file} does not read back as it was written; check the disk")
            os.replace(new, file)
        finally:
            new.unlink(missing_ok=True)
        logger.info(f"checkpoint {file}")


def check_disk(cfg: CfgNode, parameters: int) -> None:
    """Refuse a run whose checkpoints have no room in OUTPUT_DIR: every ``SOLVER.CHECKPOINT_PERIOD``
    iterations one that stays, the last, the best, and one that is being written.

    Args:
        parameters: of the network; a checkpoint holds each twice, as SGD has its momentum.
    """
    folder, period = Path(cfg.OUTPUT_DIR), cfg.SOLVER.CHECKPOINT_PERIOD
    count = max(1, cfg.SOLVER.MAX_ITER // max(1, period)) + 2 + (cfg.TEST.EVAL_PERIOD > 0)
    size = 2 * 4 * parameters
    needed = count * size - sum(file.stat().st_size for file in folder.glob("model_*.pth"))
    if needed > (free := shutil.disk_usage(existing(folder)).free):
        raise UserError(
            f"OUTPUT_DIR {folder} has {free / 1e9:.2f} GB free, but {count} checkpoints of {size / 1e9:.2f} "
            f"GB need {needed / 1e9:.2f} GB; free space, choose another folder, or raise "
            f"SOLVER.CHECKPOINT_PERIOD ({period})"
        )


def latest(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``last_checkpoint`` names, or the newest that is whole; None without any.

    Raises:
        UserError: there are checkpoints, but none of them can be resumed.
    """
    folder, problems = Path(folder), list[str]()
    if not has_checkpoint(folder):
        return None
    if (folder / LAST).is_file():
        named = [folder / Path((folder / LAST).read_text("utf-8", "replace").strip()).name]
    else:
        named, problems = [], [f"{folder / LAST} is missing; the newest checkpoint that loads is taken"]
    numbered = sorted(folder.glob("model_[0-9]*.pth"), key=lambda file: file.stem, reverse=True)
    found = _first_whole(named, problems)
    if found is None:  # a run that was extended has newer ones than its first end
        ends = _first_whole([folder / FINAL], problems if (folder / FINAL).exists() else [])
        newest = _first_whole([file for file in numbered if file not in named], problems)
        found = max((each for each in (ends, newest) if each), key=lambda each: done(each[1]), default=None)
    if found is None:
        raise UserError(f"no checkpoint in {folder} can be resumed: {'; '.join(problems)}")
    for problem in problems:
        logger.warning(problem)
    return found


def done(content: dict[str, Any]) -> int:
    """Iterations that a checkpoint has behind it."""
    return int(content["trainer"]["iteration"]) + 1


def _first_whole(files: Iterable[Path], problems: list[str]) -> tuple[Path, dict[str, Any]] | None:
    for file in files:
        try:
            content = load_torch(file)
            trainer = content.get("trainer") if isinstance(content, dict) else None
            if not isinstance(trainer, dict) or "_trainer" not in trainer or "iteration" not in trainer:
                raise UserError(
                    f"{file} has no state of the optimizer (plain Detectron2 0.6 writes none) to go on with; "
                    "evaluate it, or start afresh from it with MODEL.WEIGHTS"
                )
            return file, content
        except UserError as error:
            problems.append(f"passed over: {error}")
    return None


def restore(model: nn.Module, content: dict[str, Any], file: Path) -> None:
    """Put the model's part of a checkpoint into ``model``; every key has to match."""
    try:
        model.load_state_dict(content["model"], strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{file} is a checkpoint of another model ({reason}); give the config and options of its run"
        ) from error


def score(metric: str, value: float) -> float:
    """A number that is larger for a better ``value``: of losses the smaller is; NaN is the worst."""
    return -math.inf if math.isnan(value) else -value if metric.startswith("val_loss") else value


class BestCheckpoint(HookBase):
    """Keeps ``model_best.pth`` after evaluations with a better ``metric`` than any before, resumed or not."""

    def __init__(self, checkpointer: SafeCheckpointer, metric: str, period: int) -> None:
        self.checkpointer, self.metric, self.period = checkpointer, metric, period
        self.record = Path(checkpointer.save_dir) / BEST_RECORD

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self.period > 0 and done % self.period == 0 and done != self.trainer.max_iter:
            self._keep(done)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._keep(self.trainer.max_iter)

    def _keep(self, iteration: int) -> None:
        known = self.trainer.storage.latest()
        if self.metric not in known:
            names = ", ".join(name for name in known if "/AP" in name)
            logger.warning(f"{BEST_FILE}.pth is not kept: no metric '{self.metric}'; known are {names}")
            return
        value = known[self.metric][0]
        if score(self.metric, value) > best_before(self.record, self.metric):  # never for NaN
            self.checkpointer.write(BEST_FILE, iteration=iteration - 1)
            about = {"metric": self.metric, "value": float(value), "iteration": iteration}
            write_json(self.record, {"file": f"{BEST_FILE}.pth", **about})
            logger.info(f"{BEST_FILE}.pth: {self.metric} {value:.3f} after iteration {iteration}")


def best_before(record: Path, metric: str) -> float:
    """The `score` in best.json; the worst where there is none, or a damaged one, which ends no training."""
    try:
        found = read_json(record) if record.is_file() else {}
    except UserError as error:
        logger.warning(f"{error}; the next evaluation counts as the best so far")
        found = {}
    value = found.get("value") if isinstance(found, dict) and found.get("metric") == metric else None
    return score(metric, value) if isinstance(value, int | float) else -math.inf


def finite_or_refuse(model: nn.Module, iteration: int) -> None:
    """A `UserError` where a parameter is NaN or infinite: no ruined weights replace good ones."""
    broken = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{len(broken)} parameters are NaN or infinite after iteration {iteration} "
            f"({few(broken)}); lower SOLVER.BASE_LR or lengthen SOLVER.WARMUP_ITERS. The last checkpoint is "
            "untouched"
        )
