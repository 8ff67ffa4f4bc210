"""What a run says: the terminal, ``log.jsonl`` (every row), ``log.csv`` (an epoch a row), and its loggers.

A resumed run drops the rows behind the step it resumes from, so that no step is logged twice.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from automix_transfer.console import say, terminal
from automix_transfer.io import write_text
from automix_transfer.shown import clean_lines, csv_text
from automix_transfer.training.record.loggers import Loggers
from automix_transfer.training.settings import Experiment


class Log:
    """Files and terminal of one run; every call does nothing on ranks other than 0.

    Args:
        step, epoch: steps and epochs that the run has behind it, 0 for a new one.
        total: steps of the whole run.
    """

    def __init__(self, experiment: Experiment, main: bool, step: int, epoch: int, total: int) -> None:
        self.folder, self.main, self.total = Path(experiment.output), main, total
        self._begun, self._begun_step, self._printed = time.monotonic(), step, 0.0
        self._progress: Any = None
        if not main:
            return
        self._loggers = Loggers(experiment, step, self._cut(step, epoch))
        if sys.stdout.isatty():
            self._progress = _bar(step, total)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(finished=error is None)

    def say(self, text: str) -> None:
        """A line on the terminal; an empty text says nothing."""
        if not self.main or not text:
            return
        if self._progress is not None:
            self._progress.console.print(clean_lines(text), markup=False, highlight=False)
        else:
            say(text)

    def train(self, step: int, epoch: int, epochs: int, values: dict[str, float]) -> None:
        """Log where an epoch stands.

        ``values`` holds its mean loss and metrics so far, lr, images_per_s and data_share (of waiting).
        """
        if not self.main:
            return
        self._append({"kind": "train", "step": step, "epoch": epoch, **values})
        self._loggers.row("train", step, values)
        rate = (step - self._begun_step) / max(time.monotonic() - self._begun, 1e-9)
        parts = [
            f"loss {values['loss']:.3f}",
            f"lr {values['lr']:.2g}",
            f"{values['images_per_s']:.0f} img/s",
            f"data {values['data_share']:.0%}",
            f"ETA {_clock((self.total - step) / max(rate, 1e-9))}",
        ]
        if self._progress is not None:
            what = "  ".join([f"epoch {epoch}/{epochs}", *parts])
            self._progress.update(0, completed=step, description=what)
        elif time.monotonic() - self._printed > 5:
            self._printed = time.monotonic()
            print(f"epoch {epoch}/{epochs}  step {step}/{self.total}  " + "  ".join(parts), flush=True)

    def epoch(self, row: dict[str, Any], history: list[dict[str, Any]]) -> str:
        """Log a finished epoch, ``row``, the last of ``history``; returns what there is to say of it."""
        if not self.main:
            return ""
        self._append({"kind": "epoch", **row})
        write_text(self.folder / "log.csv", _csv(history))
        self._loggers.row("epoch", row["step"], row)
        shown = [key for key in row if key.startswith(("top1", "top5", "map", "val_loss", "mask_"))]
        metrics = "  ".join(f"{key} {row[key]:.2f}" for key in shown)
        return (
            f"epoch {row['epoch']} done: loss {row['loss']:.3f}  {metrics}  "
            f"({row['images_per_s']:.0f} img/s, data {row['data_share']:.0%})"
        )

    def picture(self, name: str, image: Any, step: int) -> None:
        """An (H, W, 3) uint8 picture for the loggers."""
        if self.main:
            self._loggers.picture(name, step, image)

    def close(self, finished: bool) -> None:
        """Flush the files and leave the terminal."""
        if self.main:
            self._loggers.close(finished)
        if self._progress is not None:
            self._progress.stop()

    def _append(self, row: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "time": round(time.time(), 3)}) + "\n")

    def _cut(self, step: int, epoch: int) -> list[dict[str, Any]]:
        """Drop the rows of steps that will be done again, and a row that a killed process left unfinished;
        returns the others."""
        path = self.folder / "log.jsonl"
        kept, rows = [], []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(row, dict) or not all(
                isinstance(row.get(k, 0), int) for k in ("step", "epoch")
            ):
                continue
            if row.get("step", 0) <= step and (row.get("kind") != "epoch" or row.get("epoch", 0) <= epoch):
                kept.append(line)
                rows.append(row)
        write_text(path, "".join(f"{line}\n" for line in kept))
        return rows


def _csv(history: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in history for key in row))
    return csv_text([columns, *([row.get(key, "") for key in columns] for row in history)])


def _bar(step: int, total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
    progress = Progress(*columns, console=Console(file=terminal()))
    progress.add_task("starting", total=total, completed=step)
    progress.start()
    return progress


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
