"""The same training with several seeds, as the paper reports it: mean ± std of each one's median top-1."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.io import write_json
from automix_transfer.signals import Interrupted, StopRequest
from automix_transfer.training import distributed, joining
from automix_transfer.training.loop import train
from automix_transfer.training.record.results import HEADLINES, headline, of_each_encoder
from automix_transfer.training.record.run_folder import command_line, owning, refuse_overwriting
from automix_transfer.training.settings import Experiment

FIGURES = (
    *(f"{name}_{which}" for name in HEADLINES for which in ("median", "last", "best")),
    *("top5_last", "seconds"),
)
RULE = (
    "mean and standard deviation (n - 1) over the trials; top1_median is the median of a trial's last epochs"
)


def run_trials(
    experiment: Experiment,
    count: int,
    resume: bool = False,
    dry_run: bool = False,
    recipe: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train with the seeds ``seed``, ``seed + 1``, ... into ``trial_0``, ``trial_1``, ... of ``output``.

    Each trial is a run like any other. With ``resume`` finished ones only give their figures and one that was
    stopped goes on. After each, ``output/trials.json`` holds all figures so far. A dry run is one of the
    first trial.

    Raises:
        UserError: as `train`; without ``resume``, any trial's folder that holds a checkpoint, before anything
            is trained.
        Interrupted: as `train`.
    """
    if count < 1:
        raise UserError(f"--trials {count} must be at least 1")
    trials = []
    for number in range(count):
        folder = Path(experiment.output) / f"trial_{number}"
        if not resume:
            refuse_overwriting(folder)
        trials.append(replace(experiment, seed=experiment.seed + number, output=str(folder)))
    world = joining.start(experiment.train.device, experiment.train.wait_minutes)
    try:
        if dry_run:
            return train(trials[0], resume, True, world)
        found: list[dict[str, Any]] = []
        with owning(Path(experiment.output), world), StopRequest(impatient=world.size == 1) as stop:
            for number, trial in enumerate(trials):
                # while the trial before was writing its last file
                if asked := distributed.agree(stop.number, world):
                    how = f"go on with: {command_line(resume=True)}"
                    raise Interrupted(asked, f"stopped after {number} of {count} trials; {how}")
                world.say(f"trial {number + 1} of {count}: seed {trial.seed}, {trial.output}")
                found.append(train(trial, resume, world=world, recipe=recipe))
                summary = summarize(found, [trial.seed for trial in trials], count)
                if world.main:
                    write_json(Path(experiment.output) / "trials.json", summary)
        world.say(message(summary))
        return summary
    finally:
        joining.stop(world)


def summarize(metrics: Sequence[dict[str, Any]], seeds: Sequence[int], wanted: int) -> dict[str, Any]:
    """``{"top1_median": {"mean", "std", "values"}, ...}`` of the trials' final metrics; std is None for one.

    Every encoder's last accuracy (``top1_k_last``, ...) is summarized where there are several.
    """
    names = [name for name in (*FIGURES, *of_each_encoder(metrics[0]).values()) if name in metrics[0]]
    return {
        "trials": len(metrics),
        "wanted": wanted,
        "seeds": list(seeds[: len(metrics)]),
        "rule": RULE,
        "median_epochs": metrics[0].get("median_epochs"),
        "epochs": metrics[0]["epochs"],
        **{name: _spread([row[name] for row in metrics]) for name in names},
    }


def _spread(values: list[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "values": values}


def message(summary: dict[str, Any]) -> str:
    """What all trials end with, for people."""
    main = headline(summary, "_median")
    count, found = summary["trials"], summary.get(f"{main}_median")
    if found is None:
        return f"{count} trials finished"
    spread = f"{found['mean']:.2f}" + (f" ± {found['std']:.2f}" if found["std"] is not None else "")
    each = ", ".join(f"{value:.2f}" for value in found["values"])
    return (
        f"{count} trial{'s' if count > 1 else ''}: {HEADLINES[main]} {spread} % (median of the last "
        f"{summary['median_epochs']} epochs, then mean ± std over the seeds "
        f"{', '.join(map(str, summary['seeds']))}: {each})"
    )
