"""Commands killed again and again at any instant: the same line in the end leaves what one undisturbed does.

python benchmarks/kills.py --output runs/kills                       # 200 kills, all commands in turn
python benchmarks/kills.py --output runs/kills --kills 20 --commands pretrain detect
python benchmarks/kills.py --output runs/kills --soak 6              # see soak.py

Each command first runs undisturbed. Then one chain after the other: in a new folder, the same line is started
and killed up to six times, started once more and left alone, and every file is compared: tensors and
pictures bit by bit, results and logs value by value without times. A kill comes after some time, at a change
in the folder, or as soon as a half-written file appears; it is SIGKILL or one of the signals that a command
obeys; it goes to the process or to its whole group. A kill that came too late is none. A traceback, an exit
code that is not the signal's and a process left behind count as differences.

Most starts are forks of this process, which has imported everything; one in eight is a new interpreter, so
that imports are met too. All is drawn from --seed and noted in kills.jsonl, so that the same line goes on
after an interruption. With other code it starts its last chain afresh. Exit code 1 where a chain differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kills_commands import COMMANDS, IMPORTED, ORDER
from kills_compare import digest
from kills_process import OBEYED, Process, ended
from tabulate import tabulate

from automix_transfer.errors import UserError, run_script
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.owner import owned
from automix_transfer.training.record.run_folder import git_commit

KILLS, COLD, PATIENCE = 6, 0.125, 120.0  # of a chain, share of new interpreters, seconds to obey a signal in
STOPPED = re.compile(r"model_\d{7}\.pth")


@dataclass(frozen=True)
class Planned:
    """A kill: its signal, whom it meets, how the command is started, and when."""

    signal: signal.Signals
    group: bool
    cold: bool
    when: str  # seconds, change, part
    amount: float  # seconds, or which change or half-written file it is
    delay: float  # seconds after that

    def to_dict(self) -> dict[str, Any]:
        """For the record."""
        to = "group" if self.group else "process"
        start = "interpreter" if self.cold else "fork"
        return {"signal": self.signal.name, "to": to, "start": start, self.when: round(self.amount, 3)}


def planned(rng: random.Random, whole: Mapping[str, Any]) -> Planned:
    """Draw a kill of a command whose undisturbed run is ``whole``."""
    number = rng.choice(OBEYED) if rng.random() < 0.35 else signal.SIGKILL
    cold, group = rng.random() < COLD, rng.random() < 0.5
    when = rng.choices(("seconds", "change", "part"), (0.4, 0.25, 0.35))[0]
    if cold or not whole[f"{when}s" if when != "seconds" else when]:
        when = "seconds"
    if when == "seconds":
        amount = rng.uniform(0, whole["cold" if cold else "seconds"])
    else:
        amount = rng.randint(1, max(1, whole[f"{when}s"] // 2))
    return Planned(number, group, cold, when, amount, rng.uniform(0, 0.02) if when == "change" else 0.0)


class Watched:
    """What changes in a folder: files that are new or have grown, and half-written ones that appear."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.changes, self.parts = folder, 0, 0
        self._before = dict(self._files())

    def look(self) -> None:
        """Count what has changed since the last look."""
        now = dict(self._files())
        new = {name for name, stamp in now.items() if self._before.get(name) != stamp}
        self.changes += len(new)
        self.parts += len({name for name in new - self._before.keys() if name.endswith(".part")})
        self._before = now

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        folders = [str(self.folder)]
        while folders:
            with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        else:
                            about = entry.stat(follow_symlinks=False)
                            yield entry.path, (about.st_mtime_ns, about.st_size)


def kill(words: Sequence[str], folder: Path, log: Path, plan: Planned) -> dict[str, Any] | None:
    """Start a command and kill it as planned; None where it had ended before.

    Returns:
        What was met: ``imports`` before it owned the folder, ``half a file``, or ``work``; its exit code; and
        ``problem``, empty where all was well.
    """
    before, begin = log.stat().st_size if log.exists() else 0, time.monotonic()
    process, watched = Process(words, log, plan.cold), Watched(folder)
    while process.poll() is None:
        if plan.when == "seconds":
            if (left := begin + plan.amount - time.monotonic()) <= 0:
                break
            time.sleep(min(left, 0.05))
            continue
        watched.look()
        if (watched.changes if plan.when == "change" else watched.parts) >= plan.amount:
            time.sleep(plan.delay)
            break
        time.sleep(0.002)
    if process.poll() is not None:
        said = log.read_bytes()[before:].decode(errors="replace").strip()
        return None if process.code == 0 else {"problem": f"ended with {process.code}: {said[-300:]}"}
    owns = any(f'"pid": {process.pid}}}' in read(lock) for lock in folder.rglob("*.lock"))
    process.send(plan.signal, plan.group)
    code, problem = process.wait(PATIENCE), ""
    if code is None:
        problem = f"still runs {PATIENCE:.0f} s after {plan.signal.name}"
        process.send(signal.SIGKILL, True)
        process.wait()
    elif code == 0:
        return None  # it was about to end
    elif code not in (-plan.signal, 128 + plan.signal):
        problem = f"exit code {code}"
    if process.leaves_others():
        problem = problem or "left a process behind"
    if "Traceback (most recent call last)" in log.read_bytes()[before:].decode(errors="replace"):
        problem = problem or "a traceback"
    half = any(folder.rglob("*.part"))
    return {"met": "half a file" if half else "work" if owns else "imports", "code": code, "problem": problem}


def read(file: Path) -> str:
    """A file's text; empty where it cannot be read."""
    with suppress(OSError):
        return file.read_text(errors="replace")
    return ""


class Campaign:
    """Chains of kills in ``output``, whose record says where it stands."""

    def __init__(self, output: Path, seed: int, commands: Sequence[str]) -> None:
        self.output, self.seed, self.commands = output, seed, commands
        self.record = output / "kills.jsonl"
        self.names = {"data": output / "data", "run": output / "run", "out": output / "run"}
        self.commit = git_commit().get("commit") or "unknown"
        lines = read(self.record).splitlines(keepends=True)
        self.rows = [json.loads(line) for line in lines if line.endswith("\n")]
        write_text(self.record, "".join(line for line in lines if line.endswith("\n")))

    def words(self, name: str, out: Path) -> list[str]:
        """A command that writes to ``out``."""
        return [word.format(**self.names | {"out": out}) for word in COMMANDS[name]]

    def prepare(self) -> None:
        """The data and the run that the commands use."""
        log = self.output / "prepare.log"
        data = ("data", "synthetic", "--out", str(self.names["data"]), "--scale", "0.03", "--processes", "1")
        ended(Process(data, log, False), log)
        ended(Process(self.words("pretrain", self.names["run"]), log, False), log)

    @cache  # noqa: B019
    def whole(self, name: str) -> dict[str, Any]:
        """The undisturbed run of a command: seconds of a new interpreter and of a fork, what changes while it
        runs, and what it leaves."""
        file = self.output / f"{name}_whole.json"
        if file.is_file() and (found := read_json(file))["commit"] == self.commit:
            return found
        folder, log = self.output / f"{name}_whole", self.output / f"{name}_whole.log"
        seconds = []
        for cold in (True, False):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            begin, process, watched = (
                time.monotonic(),
                Process(self.words(name, folder), log, cold),
                Watched(folder),
            )
            while process.poll() is None:
                watched.look()
                time.sleep(0.002)
            ended(process, log)
            seconds.append(time.monotonic() - begin)
            left = digest(folder)
            if cold:
                first = left
        if first != left:
            raise UserError(f"two undisturbed runs of {name} differ in {', '.join(differences(first, left))}")
        shutil.rmtree(folder)
        counts = {"changes": watched.changes, "parts": watched.parts}
        found = {"commit": self.commit, "cold": seconds[0], "seconds": seconds[1], **counts, "files": left}
        write_json(file, found)
        return found

    def chain(self, number: int) -> None:
        """Kill a command again and again, let it end, and compare; or go on with that."""
        name = self.commands[number % len(self.commands)]
        whole, folder = self.whole(name), self.output / f"{number}_{name}"
        log = self.output / f"{number}_{name}.log"
        mine = [row for row in self.rows if row["chain"] == number and row["commit"] == self.commit]
        if not mine:
            shutil.rmtree(folder, ignore_errors=True)
            log.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        words, about = self.words(name, folder), {"chain": number, "command": name, "commit": self.commit}
        for attempt in range(len(mine), KILLS):
            plan = planned(random.Random(f"{self.seed} {number} {attempt}"), whole)
            met = kill(words, folder, log, plan)
            if met is None:
                break
            self.note({**about, "kill": attempt, **plan.to_dict(), **met})
        problems = [row["problem"] for row in self.rows if row["chain"] == number and row.get("problem")]
        try:
            ended(Process(words, log, False), log)
            problems += differences(whole["files"], digest(folder))
        except UserError as error:
            problems.append(str(error))
        self.note({**about, "ended": True, "differs": problems})
        if not problems:
            shutil.rmtree(folder)
            log.unlink()

    def note(self, row: dict[str, Any]) -> None:
        """Put a line into the record, and print it."""
        self.rows.append(row)
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        kills = sum("kill" in each for each in self.rows)
        said = ", ".join(
            str(value) for key, value in row.items() if key not in ("commit", "ended") and value != ""
        )
        print(f"{kills} kills: {said}", flush=True)

    def run(self, kills: int) -> int:
        """Go on to ``kills``; the number of chains that differ."""
        self.prepare()
        number = max((row["chain"] + (1 if "ended" in row else 0) for row in self.rows), default=0)
        while sum("kill" in row for row in self.rows) < kills:
            self.chain(number)
            number += 1
        text = summary(self.rows)
        write_text(self.output / "summary.md", text)
        print(text)
        return sum(bool(row.get("differs")) for row in self.rows)


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Files that are not the same, but for checkpoints that a detector wrote where a signal stopped it."""
    differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return [name for name in differing if name in expected or not STOPPED.fullmatch(name)]


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The record as tables in Markdown."""
    kills = [row for row in rows if "kill" in row]
    ends = [row for row in rows if "ended" in row]
    names = ("SIGKILL", *(number.name for number in OBEYED))
    met = ("imports", "work", "half a file")
    body = []
    for name in dict.fromkeys(row["command"] for row in kills):
        mine = [row for row in kills if row["command"] == name]
        signals, places = (Counter(row.get(key) for row in mine) for key in ("signal", "met"))
        chains = [row for row in ends if row["command"] == name]
        unequal = sum(bool(row["differs"]) for row in chains)
        counts = (*(signals[each] for each in names), *(places[each] for each in met))
        body.append((name, len(mine), *counts, len(chains), unequal))
    total = ("all", *(sum(column) for column in list(zip(*body, strict=True))[1:]))
    head = ("command", "kills", *names, *met, "chains", "unequal")
    return tabulate([*body, total], head, "github") + "\n"


def main() -> int:
    """Exit code 1 where a chain differs from the undisturbed run, or the soak grew."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kills", type=int, default=200, help="default %(default)s")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(ORDER))
    parser.add_argument("--soak", type=float, metavar="HOURS", help="train under random signals instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # bits depend on it
    import importlib

    import torch

    torch.set_num_threads(1)
    with owned(options.output):
        if options.soak:
            from soak import soak

            return soak(options.output, options.soak, options.seed)
        for name in IMPORTED:
            importlib.import_module(f"automix_transfer.{name}")
        return int(Campaign(options.output, options.seed, options.commands).run(options.kills) > 0)


if __name__ == "__main__":
    run_script(main)
