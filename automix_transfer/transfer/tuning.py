"""The best value of a setting for each backbone, chosen on training images that were held out meanwhile.

Every value is a training of its own (a *trial*), by the command that the comparison itself uses, with another
seed than the comparison's; a fifth of the training images is held out of it and measured on. No test image is
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer.io import read_json
from automix_transfer.jobs import Job
from automix_transfer.transfer.transfer_settings import TASKS, Grid

HELD_OUT = 20  #: percent of the training images (of fine-tuning: of each class)
SEED = 100  #: of every trial


@dataclass(frozen=True)
class Trial:
    """One training with one value of a grid; ``job`` writes what it is worth."""

    task: str
    data: str
    backbone: str
    value: str
    job: Job


@dataclass(frozen=True)
class Choice:
    """What was chosen for one backbone.

    Attributes:
        key: the setting.
        value: the best one; None where no trial could be run.
        held_out: value -> percent on the held-out images, of the trials that could be run.
        lost: value -> why its trial failed.
    """

    task: str
    data: str
    backbone: str
    key: str
    value: str | None
    held_out: Mapping[str, float]
    lost: Mapping[str, str]

    def text(self, grid: Grid) -> str:
        """``vanilla 0.03 (71.20 %)``, with a word where a better one may lie outside of the grid."""
        if self.value is None:
            return f"{self.backbone} none"
        numbers = sorted(
            number for value in grid.values if (number := _number(value)) is not None
        )  # words have no edge
        at_edge = bool(numbers) and _number(self.value) in (numbers[0], numbers[-1])
        edge = ", at the edge of the grid" if at_edge else ""
        lost = f"; without {', '.join(self.lost)}, which failed" if self.lost else ""
        return f"{self.backbone} {self.value} ({self.held_out[self.value]:.2f} %{edge}{lost})"


def choose(
    trials: Sequence[Trial],
    grids: Mapping[str, Grid],
    value_at: Callable[[Any, Sequence[str], Path], float | None],
    failures: Mapping[str, str] | None = None,
) -> list[Choice]:
    """The best value of each backbone, task and data set; of equal ones the first of the grid.

    Args:
        value_at: reads the figure of a result; see `answer.value_at`.
        failures: job -> why it failed.

    Raises:
        UserError: a result that cannot be read.
    """
    held_out: dict[tuple[str, str, str], dict[str, float]] = {}
    lost: dict[tuple[str, str, str], dict[str, str]] = {}
    for trial in trials:
        key = trial.task, trial.data, trial.backbone
        found = held_out.setdefault(key, {})
        if trial.job.name in (failures or {}):
            lost.setdefault(key, {})[trial.value] = (failures or {})[trial.job.name]
        if trial.job.done:
            _, path, _ = TASKS[trial.task].figures[0]
            value = value_at(read_json(trial.job.result), path, trial.job.result)
            if value is not None:
                found[trial.value] = value
    return [
        Choice(
            *key, grids[key[0]].key, max(found, key=found.__getitem__, default=None), found, lost.get(key, {})
        )
        for key, found in held_out.items()
    ]


def said(choices: Sequence[Choice], grids: Mapping[str, Grid]) -> list[str]:
    """A line for each task and data set: what was chosen for which backbone."""
    lines = []
    for task, data in dict.fromkeys((one.task, one.data) for one in choices):
        mine = [one.text(grids[task]) for one in choices if (one.task, one.data) == (task, data)]
        grid = grids[task]
        lines.append(
            f"{grid.key} of {TASKS[task].title}, {data}, chosen of {', '.join(grid.values)} on {HELD_OUT} % "
            f"of the training images, held out: {', '.join(mine)}"
        )
    return lines


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
