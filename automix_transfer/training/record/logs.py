"""What a run says: the terminal, ``log.jsonl`` (every row), ``log.csv`` (an epoch a row) and TensorBoard.

A resumed run drops the rows behind the step it resumes from, so that no step is logged twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automix_transfer.console import say, terminal
from automix_transfer.io import write_text
from automix_transfer.shown import clean_lines, csv_text


class Log:
    """Files and terminal of one run; every call does nothing on ranks other than 0.

    Args:
        step, epoch: steps and epochs that the run has behind it, 0 for a new one.
        total: steps of the whole run.
    """

    def __init__(
        self, folder: Path, main: bool, step: int, epoch: int, total: int, tensorboard: bool = True
    ) -> None:
        self.folder, self.main, self.total = folder, main, total
        self._begun, self._begun_step, self._printed = time.monotonic(), step, 0.0
        self._writer: Any = None
        self._progress: Any = None
        if not main:
            return
        self._cut(step, epoch)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        if sys.stdout.isatty():
            self._progress = _bar(step, total)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        self._scalars("train", values, step)
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
        self._scalars("epoch", {k: v for k, v in row.items() if isinstance(v, float)}, row["step"])
        shown = [key for key in row if key.startswith(("top1", "top5", "val_loss", "mask_"))]
        metrics = "  ".join(f"{key} {row[key]:.2f}" for key in shown)
        return (
            f"epoch {row['epoch']} done: loss {row['loss']:.3f}  {metrics}  "
            f"({row['images_per_s']:.0f} img/s, data {row['data_share']:.0%})"
        )

    def picture(self, name: str, image: Any, step: int) -> None:
        """An (H, W, 3) uint8 picture for TensorBoard."""
        if self.main and self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush the files and leave the terminal."""
        if self._writer is not None:
            self._writer.close()
        if self._progress is not None:
            self._progress.stop()

    def _append(self, row: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "time": round(time.time(), 3)}) + "\n")

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def _cut(self, step: int, epoch: int) -> None:
        """Drop the rows of steps that will be done again, and a row that a killed process left unfinished."""
        path = self.folder / "log.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if row.get("step", 0) <= step and (row.get("kind") != "epoch" or row.get("epoch", 0) <= epoch):
                kept.append(line)
        write_text(path, "".join(f"{line}\n" for line in kept))


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
