"""``plan`` and ``run``: how far the runs of a table are, what is left and how long it takes, and doing it,
here or by a scheduler."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from automix_transfer import __version__
from automix_transfer.console import show
from automix_transfer.errors import UserError
from automix_transfer.io import write_json, write_text
from automix_transfer.jobs import Job, run_jobs
from automix_transfer.paper import published as paper
from automix_transfer.paper.measured import measure
from automix_transfer.paper.plans.plan import UNKNOWN_WEIGHTS, Plan, PlannedRun, Settings, line_of, planned
from automix_transfer.paper.plans.scale import Scale
from automix_transfer.paper.plans.times import StepTimes
from automix_transfer.paper.references import plain_config, training_key
from automix_transfer.paper.trained import PLANNED, Trained, differences, epochs_done, read_trained, short
from automix_transfer.progress import duration
from automix_transfer.text_files import read_text
from automix_transfer.training.settings import load_experiment

SLURM = """#!/bin/bash
# {count} runs; sbatch {file} starts them, each as a task of its own.
# Give partition, GPUs and time of your machine.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --signal=TERM@120
#SBATCH --requeue
cd {folder}
commands=(
{commands}
)
bash -c "${{commands[$SLURM_ARRAY_TASK_ID]}}"
"""


def make_plan(
    args: argparse.Namespace, settings: Settings, say: Callable[[str], None]
) -> tuple[Plan, StepTimes]:
    """The plan of ``args.tables``, with each run's state and the hours that are left of it."""
    tables = [paper.table(name) for name in args.tables]
    if settings.output.is_dir():
        found = measure([settings.output], say)
        settings.known = {
            (training_key(figure.attributes), figure.seed): figure.run
            for figure in found.figures
            if figure.attributes["metric"] == "top1" and not figure.marks
        }
    plan = planned(tables, settings, args.only)
    # before anything is made of them; one recipe of a method tells keys and types, `check` asks all
    if settings.overrides:
        for run in {run.reference.attributes["method"]: run for run in plan.runs}.values():
            load_experiment([run.reference.recipe], [*run.overrides, "data.root=."])
    times = StepTimes(args.times or settings.output / "step_times.json", args.measure, say)
    for run in plan.runs:
        _look(run, times)
    return plan, times


def _look(run: PlannedRun, times: StepTimes) -> None:
    """How far a run is, from its folder."""
    config = plain_config(run.reference.recipe, run.overrides)
    epochs = int(float(config["train.epochs"]))
    finished = 0
    if (run.folder / "metrics.json").exists():
        trained = read_trained(run.folder)
        finished = epochs
        left = [step.name for step in run.steps if not step.done]
        otherwise = [] if trained.faults else _otherwise(trained, config)
        run.faults = trained.faults + otherwise
        run.state = (
            "damaged"
            if trained.faults
            else "trained otherwise"
            if otherwise
            else f"trained, to do: {', '.join(left)}"
            if left
            else "done"
        )
    elif (run.folder / "log.csv").exists() or (run.folder / "last.pt").exists():
        finished = epochs_done(run.folder)
        run.state = f"epoch {finished} of {epochs}"
    if run.state == "done" or run.faults:
        run.hours = 0.0
        return
    data = run.reference.data
    limit = int(float(config["data.limit_per_class"]))
    images = min(data.train, limit * data.classes) if data and limit else data.train if data else 0
    run.hours = times.hours(run.reference, epochs - finished, images)


def _otherwise(trained: Trained, config: Mapping[str, Any]) -> list[str]:
    """A sentence where a finished training has other settings, or started from another file, than ``config``
    would train with."""
    different = differences(trained.config, config)
    ours, theirs = (str(each.get("encoder.weights") or "") for each in (trained.config, config))
    if (
        not theirs.startswith(UNKNOWN_WEIGHTS)
        and (ours or theirs)
        and os.path.abspath(ours) != os.path.abspath(theirs)
    ):
        different["encoder.weights"] = ours, theirs
    shown = [
        f"{key}={short(ours)} instead of {short(theirs)}" for key, (ours, theirs) in sorted(different.items())
    ]
    more = f" and {len(shown) - 2} more settings" if len(shown) > 2 else ""
    return (
        [f"{trained.path} was trained with {', '.join(shown[:2])}{more}; give another --output"]
        if shown
        else []
    )


def plan_text(plan: Plan, times: StepTimes, scale: Scale) -> str:
    """Each run with its state, time and command, and what it comes to."""
    lines: list[str] = []
    previous = ""
    for run in plan.runs:
        if run.name != previous:
            lines += ["", f"{run.name}: {'; '.join(dict.fromkeys(run.cells))}"]
            previous = run.name
        mark = "x" if run.state == "done" else "!" if run.faults else " " if run.state == "to do" else "."
        lines.append(f"[{mark}] seed {run.seed}: {run.state}{_time(run, times)}")
        if run.faults:
            lines += [f"    {fault}" for fault in run.faults]
        elif run.state != "done":
            lines.append(f"    {line_of(run)}")
    return "\n".join([*lines, "", *summary(plan, times, scale)]).lstrip("\n")


def _time(run: PlannedRun, times: StepTimes) -> str:
    if run.state == "done" or run.faults:
        return ""
    if run.hours is not None:
        return f", about {duration(3600 * run.hours)}"
    why = times.why(run.reference)
    return f", time not measured: {why}" if why else ", time not measured"


def summary(plan: Plan, times: StepTimes, scale: Scale) -> list[str]:
    """Counts, hours and what is missing, as sentences."""
    states = [run.state for run in plan.runs]
    done, untouched, damaged, other = (
        states.count(name) for name in ("done", "to do", "damaged", "trained otherwise")
    )
    begun = len(states) - done - untouched - damaged - other
    broken = (f", {damaged} damaged" if damaged else "") + (f", {other} trained otherwise" if other else "")
    lines = [f"{counted(len(plan.runs))}: {done} done, {begun} begun, {untouched} to do{broken}."]
    known = [run.hours for run in plan.runs if run.hours is not None]
    unknown = sum(run.hours is None for run in plan.runs)
    if sum(known) > 0:
        lines.append(
            f"About {duration(3600 * sum(known))} one after another on this machine ({times.machine}), by a "
            f"few steps of each in {times.file}; reading the images is not counted"
            + (f", and {unknown} runs without a time are not" if unknown else "")
            + "."
        )
    if scale != Scale():
        lines.append(
            f"Shrunk: epochs x{scale.epochs:g}, training images x{scale.data:g}. Tables mark every figure of "
            "such a run."
        )
    if plan.without:
        lines.append(
            f"{len(plan.without)} cells have no recipe: "
            f"{'; '.join(plan.without[:4])}{'; ...' if len(plan.without) > 4 else ''}."
        )
    if plan.roots_missing:
        lines.append(
            f"Give --data.root for {', '.join(plan.roots_missing)}: DIR for all, or NAME=DIR for each "
            f"(--data.root {plan.roots_missing[0]}=/data/{plan.roots_missing[0]})."
        )
    if plan.weights_missing:
        lines.append(
            f"Give --weights NAME=FILE for {', '.join(plan.weights_missing)}: what these trainings start "
            "from."
        )
    return [*lines, *times.problems]


def counted(runs: int) -> str:
    """``1 run``, ``2 runs``."""
    return f"{runs} run{'' if runs == 1 else 's'}"


def run_plan(plan: Plan, settings: Settings, tables: Sequence[str]) -> int:
    """Run or resume what is left, one after another; a training that was stopped goes on."""
    check(plan)
    jobs: list[Job] = []
    for run in plan.runs:
        names = [f"{run.name} seed{run.seed} {step.name}" for step in run.steps]
        for k, step in enumerate(run.steps):
            minutes = 60 * (run.hours or 0.0) if k == 0 else 1.0
            jobs.append(replace(step, name=names[k], needs=names[:k], minutes=minutes))
        write_plan(run, settings, tables)
    run_jobs(jobs, settings.output / "logs", 1, threads=None)
    tables_command = f"automix-transfer report tables {settings.output} --table {tables[0]}"
    print(f"done: {counted(len(plan.runs))}; {tables_command}")
    return 0


def write_plan(run: PlannedRun, settings: Settings, tables: Sequence[str]) -> None:
    """Say in the run's folder what it is for, and by what it was shrunk."""
    content: Mapping[str, Any] = {
        "tables": list(tables),
        "cells": run.cells,
        "attributes": dict(run.reference.attributes),
        "recipe": str(run.reference.recipe),
        "overrides": list(run.overrides),
        "scale": asdict(settings.scale),
        "version": __version__,
    }
    if not run.done:
        write_json(run.folder / PLANNED, content)


def print_commands(
    plan: Plan, settings: Settings, tables: Sequence[str], kind: str, output: Path | None
) -> int:
    """What is left for a scheduler: one command a line, or a SLURM array."""
    check(plan)
    left = [run for run in plan.runs if run.state != "done"]
    for run in left:
        write_plan(run, settings, tables)
    commands = [line_of(run, list) for run in left]
    text = "".join(f"{command}\n" for command in commands)
    if kind == "slurm" and commands:
        text = SLURM.format(
            count=len(commands),
            file=output or "FILE",
            name="_".join(tables),
            last=len(commands) - 1,
            folder=shlex.quote(str(Path.cwd())),
            commands="\n".join(map(shlex.quote, commands)),
        )
    if output is not None:
        write_text(output, text)
        print(f"written: {output} ({len(commands)} runs)", file=sys.stderr)
    else:
        show(text, end="")
    return 0


def is_list(file: Path) -> bool:
    """Whether `print_commands` wrote ``file``."""
    first, _, rest = read_text(file).partition("\n")
    commands = re.search("automix[-_]transfer ", first)
    return bool(commands) or (first == "#!/bin/bash" and "; sbatch " in rest[:300])


def check(plan: Plan) -> None:
    """Everything that can be known to be wrong before the first run starts.

    Raises:
        UserError: a finished run that is damaged or of other settings, data whose folder is not named, or a
            setting that a recipe refuses.
    """
    for run in plan.runs:
        if run.faults:
            raise UserError(
                f"{run.faults[0]}{';' if run.state == 'damaged' else ', or'} remove {run.folder} to run it "
                "again"
            )
    left = [run for run in plan.runs if run.state != "done"]
    missing = plan.roots_missing
    if missing and left:
        raise UserError(
            f"the folder of {', '.join(missing)} is not known; give --data.root DIR, or --data.root NAME=DIR "
            "for each, "
            f"e.g. --data.root {missing[0]}=/data/{missing[0]}"
        )
    if plan.weights_missing and left:
        name = plan.weights_missing[0]
        raise UserError(
            f"the weights of {', '.join(plan.weights_missing)} are not known, which trainings start from; "
            "give --weights "
            f"{name}=FILE, e.g. torchvision's"
        )
    for run in {run.name: run for run in left}.values():
        load_experiment([run.reference.recipe], [*run.overrides, "data.root=."])
