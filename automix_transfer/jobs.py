"""Commands that depend on each other: what is done, what is left, and running it side by side.

A job is done when its result proves it, and is not run again; so what was interrupted goes on where it
stopped. Each job gets one thread: for networks of this size two processes of one thread do more than one
process of two. The jobs' output is prefixed by their names.
"""

from __future__ import annotations

import os
import queue
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from automix_transfer import signals
from automix_transfer.command_line import typed
from automix_transfer.errors import UserError
from automix_transfer.progress import duration

#: what our commands print of their progress, their figures and what went wrong
PROGRESS = re.compile(r" iter: |Inference done|: AP [-–.\d]+  AP50|resumed from|^\s*top-1 |^error")


def is_progress(line: str) -> bool:
    """Whether a line of a training or an evaluation is worth showing among those of others."""
    return PROGRESS.search(line) is not None


@dataclass
class Job:
    """A command, the jobs it needs, and the file that proves that it is done.

    Attributes:
        name: short; the prefix of its output.
        command: as `command_line.command` gives it, or any other.
        result: file that exists once the job has succeeded; where that alone proves nothing, ``proves`` looks
            into it.
        needs: names of jobs that must be done first.
        minutes: rough cost; of the jobs that could start, the longest chain starts first. 0 is not known.
        keep: which lines of its output are shown; all of them go to ``<log folder>/<name>.log``.
        data: a digest of the data that it reads, where that is known.
    """

    name: str
    command: Sequence[str]
    result: Path
    needs: Sequence[str] = ()
    minutes: float = 0.0
    keep: Callable[[str], bool] = field(default=lambda line: True)
    proves: Callable[[Path], bool] = Path.exists
    data: str = ""

    @property
    def done(self) -> bool:
        return self.proves(self.result)

    @property
    def begun(self) -> bool:
        """Whether it is a training that goes on from a checkpoint."""
        return any((self.result.parent / part).exists() for part in ("last.pt", "last_checkpoint"))

    @property
    def line(self) -> str:
        """The command as a person types it."""
        return shlex.join(typed(self.command))


def side_by_side(given: int | None, num_gpus: int = 0) -> int:
    """How many jobs run at a time: ``--jobs``, or a core each, at most 4; one where each takes the GPUs.

    Raises:
        UserError: ``--jobs`` is less than 1, or more than 1 where jobs would share the GPUs.
    """
    if given is not None and (given < 1 or (num_gpus and given > 1)):
        shared = ", and with --num-gpus only 1, for jobs would share the GPUs" if num_gpus else ""
        raise UserError(f"--jobs {given}: at least 1{shared}")
    return given or (1 if num_gpus else max(1, min(os.cpu_count() or 1, 4)))


def plan_table(jobs: Sequence[Job]) -> str:
    """Each job, whether it is done, and the minutes that it takes where they are known."""
    rows = [
        (job.name, "done" if job.done else "to do", f"{job.minutes:.1f}" if job.minutes else "")
        for job in jobs
    ]
    align = ("left", "left", "right")
    return tabulate(rows, ("job", "state", "minutes"), "simple", colalign=align, disable_numparse=True)


def run_jobs(
    jobs: Sequence[Job],
    logs: Path,
    parallel: int,
    threads: int | None = 1,
    failures: dict[str, str] | None = None,
    devices: Sequence[str] = (),
) -> dict[str, float]:
    """Run ``jobs``, at most ``parallel`` at a time, and return the seconds of each that was not done before.

    A signal ends the jobs too, and so does the death of this process: training saves itself, and the same
    command goes on.

    Args:
        threads: of each job; None leaves it to the job.
        failures: filled with why each job failed, or was not started because one that it needs failed; the
            others go on. None: the first failure ends all.
        devices: what CUDA_VISIBLE_DEVICES is for the jobs that run at a time, one each; empty: as it is.

    Raises:
        UserError: a job failed; the others are stopped, and the message names its log and its last line.
    """
    logs.mkdir(parents=True, exist_ok=True)
    done = {job.name for job in jobs if job.done}
    waiting = sorted((job for job in jobs if job.name not in done), key=lambda job: -_longest(job, jobs))
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    free, held = list(devices), {}
    seconds: dict[str, float] = {}
    whole = {job.name for job in waiting if not job.begun}  # by whose time that of the others is told
    lines: queue.Queue[tuple[Job, str | None]] = queue.Queue()
    print(_standing(jobs, done, {}, parallel), flush=True)
    with _ended_with_us(running):
        while waiting or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            while ready and len(running) < parallel:
                job = ready.pop(0)
                waiting.remove(job)
                held[job.name] = free.pop(0) if free else None
                running[job.name] = (_start(job, logs, lines, threads, held[job.name]), time.monotonic())
                _say(job, "started")
            job, line = lines.get()
            if line is not None:
                if job.keep(line):
                    _say(job, line)
                continue
            process, begun = running.pop(job.name)
            if (device := held.pop(job.name)) is not None:
                free.append(device)
            if process.wait() != 0:
                if failures is None:
                    raise UserError(_why(job, logs, process.returncode))
                _say(job, "failed; the others go on")
                failures[job.name] = _reason(job, logs, process.returncode)
                waiting = _without_those_that_need(job.name, waiting, failures)
                continue
            done.add(job.name)
            seconds[job.name] = time.monotonic() - begun
            measured = {name: took for name, took in seconds.items() if name in whole}
            _say(job, f"done in {duration(seconds[job.name])}; {_standing(jobs, done, measured, parallel)}")
    return seconds


def _why(job: Job, logs: Path, code: int) -> str:
    return (
        f"'{job.name}' failed with exit code {code} ({_last_line(logs, job)}); its output is in "
        f"{_log(logs, job)}, its command was: {job.line}"
    )


def _reason(job: Job, logs: Path, code: int) -> str:
    """The sentence of an error; of a process that was killed, how it ended and what it said last."""
    last = _last_line(logs, job)
    return last.removeprefix("error: ") if last.startswith("error: ") else f"exit code {code}, after: {last}"


def _without_those_that_need(name: str, waiting: Sequence[Job], failures: dict[str, str]) -> list[Job]:
    """What can still be done after ``name`` failed; the others are noted in ``failures``."""
    lost = {name}
    while more := {job.name for job in waiting if not lost.isdisjoint(job.needs)} - lost:
        lost |= more
    reason = f"'{name}', which it needs, failed: {failures[name]}"
    failures.update({job.name: reason for job in waiting if job.name in lost})
    return [job for job in waiting if job.name not in lost]


@contextmanager
def _ended_with_us(running: Mapping[str, tuple[subprocess.Popen, float]]) -> Iterator[None]:
    """However we end, the jobs end too: they have sessions of their own and would go on."""
    try:
        with signals.listening(), signals.kept("interrupted; the same command goes on"):
            yield
    finally:
        for process, _ in running.values():
            process.terminate()  # training jobs write a checkpoint on SIGTERM
        for process, _ in running.values():
            process.wait()


def _standing(jobs: Sequence[Job], done: set[str], seconds: Mapping[str, float], parallel: int) -> str:
    """``3 of 12 jobs done, about 8 min left``, at the pace of those that ran whole."""
    text = f"{len(done)} of {len(jobs)} jobs done"
    left = [job for job in jobs if job.name not in done]
    if not left or not (seconds or all(job.minutes for job in left)):
        return text
    expected = sum(job.minutes or 1.0 for job in jobs if job.name in seconds)
    pace = sum(seconds.values()) / expected if expected else 60.0
    minutes = max(sum(job.minutes or 1.0 for job in left) / parallel, *(_longest(job, left) for job in left))
    return f"{text}, about {duration(pace * minutes)} left"


def _start(
    job: Job, logs: Path, lines: queue.Queue, threads: int | None, device: str | None
) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        signals.tied(list(job.command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to us; we stop the jobs
    )
    threading.Thread(target=_pump, args=(job, process, logs, lines), daemon=True).start()
    return process


def _pump(job: Job, process: subprocess.Popen, logs: Path, lines: queue.Queue) -> None:
    """Into the log, and to us; where the log cannot be written, to us alone, so that the job goes on."""

    def log(text: str) -> None:
        with suppress(OSError), open(_log(logs, job), "a", encoding="utf-8", opener=_opener) as file:
            file.write(text)

    log(f"$ {job.line}\n")
    for line in process.stdout or ():
        log(line)
        if line.strip():
            lines.put((job, line.rstrip()))
    lines.put((job, None))


def _opener(path: str, flags: int) -> int:
    """Follows no link and waits for no pipe, which a folder of somebody else's may hold."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _longest(job: Job, jobs: Sequence[Job]) -> float:
    """Minutes from the start of ``job`` to the end of the longest chain that waits for it."""
    after = (_longest(other, jobs) for other in jobs if job.name in other.needs)
    return (job.minutes or 1.0) + max(after, default=0.0)


def _log(logs: Path, job: Job) -> Path:
    return logs / f"{job.name.replace(' ', '_')}.log"


def _last_line(logs: Path, job: Job) -> str:
    text = ""
    with suppress(OSError), open(_log(logs, job), encoding="utf-8", errors="replace", opener=_opener) as file:
        text = file.read()
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no output"])[-1]


def _say(job: Job, line: str) -> None:
    print(f"[{job.name:<20}] {line}", flush=True)
