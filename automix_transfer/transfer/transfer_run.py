"""A comparison of backbones, checked, shown, run and answered."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from automix_transfer.command_line import this_command
from automix_transfer.compared.settings import settings_in, without
from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json, write_json
from automix_transfer.jobs import Job, plan_table, run_jobs, side_by_side
from automix_transfer.owner import owned, refuse_foreign
from automix_transfer.training.record.run_folder import git_commit
from automix_transfer.transfer.answer import Row, answer, value_at
from automix_transfer.transfer.backbones import Backbone, Named, open_backbones
from automix_transfer.transfer.recipes import recipe_digest, usual_detector
from automix_transfer.transfer.transfer_plan import Cell, option_of, plan, plan_trials
from automix_transfer.transfer.transfer_settings import DETECTION, Settings, stands_on
from automix_transfer.transfer.tuning import Choice, Trial, choose, said

RECORD = "transfer.json"  #: in the output: every job that was begun, with its command and its backbone
#: what of a command may be another one when a comparison goes on: it changes no figure
FREE = ("--num-gpus",)


@dataclass(frozen=True)
class Prepared:
    """Everything that is to be done, checked.

    Attributes:
        backbones: by name and seed.
        jobs: of the comparison.
        trials: what chooses settings first (``--tune``).
        before: the jobs of ``trials``, with their exports; as long as one is left, ``jobs`` are not run.
        choices: what the trials that are done chose.
        unfit: job -> why it cannot be done; it is among neither ``jobs`` nor ``before``.
    """

    settings: Settings
    named: tuple[Named, ...]
    backbones: Mapping[tuple[str, int], Backbone]
    jobs: list[Job]
    cells: list[Cell]
    trials: tuple[Trial, ...] = ()
    before: tuple[Job, ...] = ()
    choices: tuple[Choice, ...] = ()
    unfit: Mapping[str, str] = field(default_factory=dict)

    def without(self, unfit: Mapping[str, str]) -> Prepared:
        """The same without jobs that cannot be done; the table says why."""
        jobs = [job for job in self.jobs if job.name not in unfit]
        before = tuple(job for job in self.before if job.name not in unfit)
        left = replace(self, jobs=jobs, before=before, unfit=unfit)
        if not self.trials or left.choosing:
            return left
        failures = dict(unfit)  # where no trial of a backbone can be done, its other jobs are not
        return replace(chosen(left, unfit, failures), unfit=failures)

    def missing(self) -> list[str]:
        """A sentence for each reason for which jobs cannot be done."""
        jobs: dict[str, list[str]] = {}
        for name, reason in self.unfit.items():
            jobs.setdefault(reason, []).append(name)
        return [f"not to be done: {few(names)}: {reason}" for reason, names in jobs.items()]

    @property
    def choosing(self) -> bool:
        """Whether a trial is left."""
        return any(not job.done for job in self.before)

    @property
    def now(self) -> list[Job]:
        """What can be run: the trials, and when they are done the comparison."""
        return list(self.before) if self.choosing else self.jobs

    def text(self) -> str:
        """The plan: jobs with their minutes, their commands, and what differs between the backbones."""
        jobs = {job.name: job for job in (*self.now, *self.jobs)}.values()
        left = [job for job in jobs if not job.done]
        hours = sum(job.minutes for job in left) / 60
        unknown = sum(not job.minutes for job in left)
        known = f"{hours:.1f} core-hours are left, by a step measured on this machine" if hours else ""
        if hours and unknown:
            known += f", and {unknown} jobs whose time is not known here"
        then = (
            f"These choose {', '.join(sorted({one.key for one in self.choices}))} for each backbone; then "
            f"come the {len(self.jobs)} jobs of the comparison, with what was chosen"
            if self.choosing
            else ""
        )
        commands = "\n".join(job.line for job in self.now if not job.done)
        parts = [plan_table(self.now), *self.missing(), then, known]
        parts += [commands and f"commands:\n{commands}", "\n".join(self.differences())]
        return "\n\n".join(filter(None, parts))

    def differences(self) -> list[str]:
        """What is not the same for all backbones besides their weights."""
        seed = self.settings.seeds[0]
        infos = {one.name: self.backbones[one.name, seed].info for one in self.named}
        found = []
        titles = {"name": "network", "image_size": "image_size of pretraining"}
        for key in ("name", "stem", "mean", "std", "image_size"):
            values = {name: str(getattr(info, key)) for name, info in infos.items()}
            # a random start has another's network, and takes the normalisation with it
            if len(set(values.values())) > 1:
                found.append(f"{titles.get(key, key)}: " + ", ".join(map(" ".join, values.items())))
        which = {one.name: one.which for one in self.named if one.which}
        chosen = [] if self.choosing else said(self.choices, self.settings.tune)
        return [*found, *([f"encoder of the file: {which}"] if which else []), *chosen]

    def slurm(self) -> str:
        """An array script: a task is a chain of commands that need nothing of another task.

        The folder of its logs is made, without which SLURM starts nothing, and the record of the jobs is
        written, by which the table knows their results.
        """
        output = self.settings.output
        with owned(output, "give another --output"):
            write_record(self)
            (output / "logs").mkdir(exist_ok=True)
        chains = [shlex.quote("\n".join(steps_of(chain))) for chain in chains_of(self.now)]
        lines = "\n".join(f"  {chain}" for chain in chains)
        again, after = without_print(this_command()), "makes the table"
        if self.choosing:
            again, after = this_command(), "prints the comparison's, with the settings that were chosen"
        log = str(output / "logs").replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
        return (
            "#!/bin/bash\n"
            "#SBATCH --job-name=transfer\n"
            f"#SBATCH --array=0-{len(chains) - 1}\n"
            "#SBATCH --gpus=1\n"
            "#SBATCH --cpus-per-task=8\n"
            f'#SBATCH --output="{log}/%a.log"\n'
            "#SBATCH --requeue\n"
            f"# What is done is not done again; when all tasks are, this {after}:\n"
            f"# {shlex.join(again)}\n"
            f"cd {shlex.quote(str(Path.cwd()))}\n"
            f"export PATH=$PATH:{shlex.quote(str(Path(sys.executable).parent))}\n"
            f"chains=(\n{lines}\n)\n"
            'bash -c "${chains[$SLURM_ARRAY_TASK_ID]}"\n'
        )

    @cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """Job -> the command that it is begun with, the digests of its data, recipe and backbone, and the
        same of what it needs."""
        digests = {found.file: found.sha256 for found in self.backbones.values()}
        digest = cache(recipe_digest)
        record: dict[str, dict[str, Any]] = {}
        jobs = [*self.before, *([] if self.choosing else self.jobs)]
        for job in jobs:  # a job comes after those that it needs
            record[job.name] = {
                "command": self.portable(without(list(map(str, job.command[4:])), FREE)),
                "sha256": next((sha for file, sha in digests.items() if file and holds(job, file)), ""),
                "data": job.data,
                "recipe": digest(job.command[4], option_of(job.command, "--config-file", "")),
                "needs": {name: record[name] for name in job.needs},
            }
        return record

    def portable(self, content: Any) -> Any:
        """``content`` with OUTPUT in its words for the folder of the comparison, which may be moved."""
        if isinstance(content, dict):
            return {key: self.portable(value) for key, value in content.items()}
        if isinstance(content, list):
            return [self.portable(value) for value in content]
        here = f"(^|=){re.escape(str(self.settings.output))}(?=/)"
        return re.sub(here, r"\1OUTPUT", content) if isinstance(content, str) else content

    def about(self, failures: Mapping[str, str]) -> dict[str, Any]:
        """What the answer is an answer to."""
        settings = self.settings
        return {
            "backbones": [one.name for one in self.named],
            "sources": {one.name: one.source for one in self.named},
            "sha256": {
                f"{name}, seed {seed}": found.sha256
                for (name, seed), found in self.backbones.items()
                if found.sha256
            },
            "tasks": list(settings.tasks),
            "data": {data.name: {"root": str(data.root), "layout": data.layout} for data in settings.data},
            "seeds": list(settings.seeds),
            "detector": settings.detector,
            "finetune_recipe": settings.finetune_recipe,
            "overrides": {task: list(words) for task, words in settings.overrides.items()},
            "tune": {task: asdict(grid) for task, grid in settings.tune.items()},
            "chosen": [asdict(one) for one in self.choices],
            "differences": self.differences(),
            "failures": dict(failures),
            "commands": {job.name: job.line for job in self.jobs},
            **git_commit(),
        }


def prepare(settings: Settings, named: Sequence[Named], num_gpus: int | None = None) -> Prepared:
    """Open every backbone, make the jobs, and refuse results of other settings.

    Args:
        num_gpus: of a detector; None: one where there is one.

    Raises:
        UserError: what is wrong with any backbone or setting; a job of OUTPUT that was begun otherwise.
    """
    settings = replace(settings, num_gpus=int(torch.cuda.is_available()) if num_gpus is None else num_gpus)
    backbones = open_backbones(named, settings.seeds, settings.output / "backbones")
    if DETECTION in settings.tasks and not settings.detector:
        settings = replace(settings, detector=usual_detector(backbones.values(), settings.data))
    before, trials = plan_trials(settings, named, backbones)
    choices = choose(trials, settings.tune, value_at)
    jobs, cells = plan(settings, named, backbones, choices)
    prepared = Prepared(
        settings, tuple(named), backbones, jobs, cells, tuple(trials), tuple(before), tuple(choices)
    )
    refuse_other_settings(prepared)
    return prepared


def write_record(prepared: Prepared) -> None:
    """Add the jobs to the record of the output."""
    file = prepared.settings.output / RECORD
    write_json(file, {**(read_json(file) if file.is_file() else {}), **prepared.record})


def holds(job: Job, file: str) -> bool:
    """Whether the command reads ``file``."""
    return file in job.command or f"encoder.weights={file}" in job.command


def refuse_others_answer(output: Path) -> None:
    """Raise a `UserError` where a file of somebody else has the name of one that is going to be written."""
    names = [f"answer.{end}" for end in ("txt", "md", "tex", "csv", "json")]
    for name in () if (output / RECORD).is_file() else (RECORD, *names, "runs.csv", "report.html"):
        refuse_foreign(output / name, lambda _: False, "file of a comparison")


def refuse_other_settings(prepared: Prepared) -> None:
    """Raise a `UserError` for a job whose results were begun with another command or other weights, or are
    measured on such results."""
    file = prepared.settings.output / RECORD
    before = prepared.portable(read_json(file)) if file.is_file() else {}
    if not isinstance(before, dict):
        raise UserError(f"{file} is no record of a comparison; choose another --output")
    remedy = "choose another --output, or remove that folder to run it again"
    jobs = {job.name: job for job in (*prepared.before, *prepared.jobs)}
    for name, now in prepared.record.items():
        job, was = jobs[name], before.get(name)
        folder, done = job.result.parent, job.result.exists()
        if not done and not job.begun:
            continue
        if not isinstance(was, dict):
            if done:
                raise UserError(f"{job.result} was made by another command than this; {remedy}")
            continue
        begun = was.get("command")
        if not isinstance(begun, list) or not all(isinstance(word, str) for word in begun):
            raise UserError(f"{file}: '{name}' has no command, a list of words; {remedy}")
        if was.get("sha256") != now["sha256"]:
            raise UserError(f"{folder}: its backbone's file has changed since; {remedy}")
        if was.get("data") and not _the_same(was["data"], now["data"]):
            raise UserError(f"{folder}: its images, their labels or boxes have changed since; {remedy}")
        if not _the_same(was.get("needs", {}), now["needs"]):
            raise UserError(
                f"{folder}: what it was measured on ({', '.join(job.needs)}) is not the same; {remedy}"
            )
        if done and was.get("recipe", now["recipe"]) != now["recipe"]:
            raise UserError(f"{folder}: its recipe has changed since; {remedy}")
        if done and begun != now["command"]:
            words, others = map(settings_in, (begun, now["command"]))
            then = " ".join(word for word in words if word not in others) or "fewer settings"
            other = " ".join(word for word in others if word not in words) or "without"
            raise UserError(f"{folder} was run with {then}, and now it is {other}; {remedy}")


def _the_same(was: Any, now: Any) -> bool:
    """Whether nothing differs of what was recorded; an older version recorded less, and fewer digests."""
    if isinstance(was, str) and isinstance(now, str):
        return f"{now} ".startswith(f"{was} ")
    if isinstance(was, dict) and isinstance(now, dict):
        return all(_the_same(was[key], now[key]) for key in now if key in was)
    return bool(was == now)


def steps_of(chain: Sequence[Job]) -> list[str]:
    """Lines of a shell that run what is not done; one that fails leaves those alone that do not need it."""
    lines = ["failed=0"]
    results = {job.name: job.result for job in chain}
    for job in chain:
        needs = "".join(f"test -e {shlex.quote(str(results[name]))} && " for name in job.needs)
        lines.append(f"test -e {shlex.quote(str(job.result))} || {{ {needs}{job.line}; }} || failed=1")
    return [*lines, "exit $failed"]


def run(prepared: Prepared, jobs: int | None) -> tuple[list[Row], dict[str, Any]]:
    """Do what is not done, and return the answer and what it is an answer to."""
    output = prepared.settings.output
    gpus = visible_gpus()
    parallel = side_by_side(jobs) if jobs is not None or not gpus else len(gpus)
    failures = dict(prepared.unfit)
    devices = [gpus[number % len(gpus)] for number in range(parallel)] if gpus else []

    def run_now(failed: dict[str, str]) -> None:
        print(plan_table(prepared.now), flush=True)
        write_record(prepared)
        run_jobs(prepared.now, output / "logs", parallel, 1, failed, devices)

    if prepared.choosing:
        lost = dict(prepared.unfit)
        run_now(lost)
        prepared = chosen(prepared, lost, failures)
    run_now(failures)
    rows = answer(prepared.cells, [one.name for one in prepared.named], failures)
    return rows, prepared.about(failures)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use."""
    usable = torch.cuda.device_count()
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(usable)))).split(",")[:usable]


def chosen(prepared: Prepared, lost: Mapping[str, str], failures: dict[str, str]) -> Prepared:
    """The comparison with what its trials chose.

    Args:
        lost: trial -> why it failed. A rate at which training diverges is one that is not chosen.
        failures: filled with the jobs of backbones for which every trial failed; they are not run.

    Raises:
        UserError: what is there already of the comparison was begun with another choice.
    """
    choices = choose(prepared.trials, prepared.settings.tune, value_at, lost)
    jobs, cells = plan(prepared.settings, prepared.named, prepared.backbones, choices)
    of = {job.name: job for job in jobs}
    for one in choices:
        for cell in cells if one.value is None else ():
            if stands_on(cell.task, one.task) and (cell.data, cell.backbone) == (one.data, one.backbone):
                reason = next(iter(one.lost.values()), "no figure")
                failures |= {
                    name: f"no value of {one.key} could be trained: {reason}"
                    for name in (cell.job, *of[cell.job].needs)
                }
    jobs = [job for job in jobs if job.name not in failures]
    ready = replace(prepared, jobs=jobs, cells=cells, before=(), choices=tuple(choices))
    refuse_other_settings(ready)
    return ready


def chains_of(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups of jobs that need each other, each in an order in which they can run."""
    group: dict[str, int] = {}
    chains: dict[int, list[Job]] = {}
    for number, job in enumerate(jobs):  # a job comes after those that it needs
        own = {group[name] for name in job.needs}
        into = min(own, default=number)
        merged = [one for other in sorted(own) for one in chains.pop(other)]
        chains[into] = [*merged, job]
        group.update({one.name: into for one in chains[into]})
    return list(chains.values())


def without_print(words: Sequence[str]) -> list[str]:
    """The command that makes the table."""
    return [word for word in without(words, ("--print",)) if not word.startswith("--print=")]
