"""Commands that depend on each other, run side by side on the machine's cores, with their output prefixed by
their names.

Each job gets one thread: for networks of this size two processes of one thread do more than one process of
two. A job whose result exists is not run again, so a chain that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from automix_transfer.command_line import typed
from automix_transfer.errors import UserError


@dataclass
class Job:
    """A command, the jobs it needs, and the file that proves that it is done.

    Attributes:
        name: short; the prefix of its output.
        command: as a user would type it.
        result: file that exists once the job has succeeded; where that alone proves nothing, ``proves`` looks
            into it.
        needs: names of jobs that must be done first.
        minutes: rough cost; of the jobs that could start, the longest chain starts first.
        keep: which lines of its output are shown; all of them go to ``<log folder>/<name>.log``.
    """

    name: str
    command: Sequence[str]
    result: Path
    needs: Sequence[str] = ()
    minutes: float = 1.0
    keep: Callable[[str], bool] = field(default=lambda line: True)
    proves: Callable[[Path], bool] = Path.exists


def run_jobs(jobs: Sequence[Job], logs: Path, parallel: int, threads: int | None = 1) -> dict[str, float]:
    """Run ``jobs``, at most ``parallel`` at a time, and return the seconds that each took (jobs done before
    are left out).

    ``threads``: of each job; None leaves it to the job. SIGTERM and Ctrl-C end the jobs too: training saves
    itself, and the same command goes on.

    Raises:
        UserError: a job failed; the others are stopped, and the message names its log and its last line.
    """
    logs.mkdir(parents=True, exist_ok=True)
    rank = {job.name: _longest(job, jobs) for job in jobs}
    done = {job.name for job in jobs if job.proves(job.result)}
    waiting = sorted((job for job in jobs if job.name not in done), key=lambda job: -rank[job.name])
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    seconds: dict[str, float] = {}
    lines: queue.Queue[tuple[Job, str | None]] = queue.Queue()
    main = threading.current_thread() is threading.main_thread()  # only there may handlers be set
    before = signal.signal(signal.SIGTERM, _leave) if main else None
    try:
        while waiting or running:
            ready = [job for job in waiting if done.issuperset(job.needs)]
            while ready and len(running) < parallel:
                job = ready.pop(0)
                waiting.remove(job)
                running[job.name] = (_start(job, logs, lines, threads), time.monotonic())
                _say(job.name, f"started ({len(done)} of {len(jobs)} done)")
            job, line = lines.get()
            if line is not None:
                if job.keep(line):
                    _say(job.name, line)
                continue
            process, begun = running.pop(job.name)
            if process.wait() != 0:
                raise UserError(
                    f"'{job.name}' failed with exit code {process.returncode} ({_last_line(logs, job)}); its "
                    "output is in "
                    f"{_log(logs, job)}, its command was: {shlex.join(typed(job.command))}"
                )
            done.add(job.name)
            seconds[job.name] = time.monotonic() - begun
            _say(job.name, f"done in {seconds[job.name]:.0f} s ({len(done)} of {len(jobs)})")
    except SystemExit:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise
    finally:
        for process, _ in running.values():
            process.terminate()  # training jobs write a checkpoint on SIGTERM
        for process, _ in running.values():
            process.wait()
        if main:
            signal.signal(signal.SIGTERM, before)
    return seconds


def _leave(number: int, _frame: FrameType | None) -> None:
    # by way of `finally`, which ends the jobs: they have sessions of their own and would go on
    raise SystemExit(128 + number)


def _start(job: Job, logs: Path, lines: queue.Queue, threads: int | None) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        job.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C comes to us; we stop the jobs
        text=True,
        errors="replace",
        start_new_session=True,
    )
    threading.Thread(target=_pump, args=(job, process, logs, lines), daemon=True).start()
    return process


def _pump(job: Job, process: subprocess.Popen, logs: Path, lines: queue.Queue) -> None:
    with open(_log(logs, job), "a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(typed(job.command))}\n")
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            if line.strip():
                lines.put((job, line.rstrip()))
    lines.put((job, None))


def _longest(job: Job, jobs: Sequence[Job]) -> float:
    """Minutes from the start of ``job`` to the end of the longest chain that waits for it."""
    return job.minutes + max(
        (_longest(other, jobs) for other in jobs if job.name in other.needs), default=0.0
    )


def _log(logs: Path, job: Job) -> Path:
    return logs / f"{job.name.replace(' ', '_')}.log"


def _last_line(logs: Path, job: Job) -> str:
    lines = [line for line in _log(logs, job).read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


def _say(name: str, line: str) -> None:
    print(f"[{name:<20}] {line}", flush=True)
    sys.stdout.flush()
