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
import atexit
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kills_compare import digest
from tabulate import tabulate

from automix_transfer.command_line import PROGRAM, command
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.owner import owned
from automix_transfer.training.record.run_folder import git_commit

SHORT = (
    "train.device=cpu",
    "train.log_every=1",
    "train.batch_size=8",
    "data.image_size=32",
    "train.epochs=2",
)
#: what each command says; {data}: the embedded data, {run}: a finished pretraining, {out}: where it writes
COMMANDS: dict[str, tuple[str, ...]] = {
    "pretrain": (
        *("pretrain", "--config-file", "embedded_r10_automix", "--resume", "data.root={data}/imagenet"),
        *(*SHORT, "data.limit_per_class=3", "data.workers=0", "train.picture_epochs=[1]"),
        *("train.save_every_steps=1", "output={out}"),
    ),
    "finetune": (
        *("finetune", "--config-file", "embedded_cub", "--resume", "data.root={data}/CUB_200_2011", *SHORT),
        *("data.limit_per_class=3", "data.workers=1", "train.save_every_steps=1"),
        *("encoder.weights={run}/last.pt", "output={out}"),
    ),
    "detect": (
        *("detect", "train", "--config-file", "embedded_R10_FPN", "--num-gpus", "0", "--resume"),
        *("--data-root", "{data}/VOC2007", "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "6"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2", "INPUT.MIN_SIZE_TRAIN", "(64,)"),
        *("INPUT.MIN_SIZE_TEST", "64", "SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2"),
        *("OUTPUT_DIR", "{out}"),
    ),
    "pack": ("data", "pack", "--dataset", "imagefolder", "--root", "{data}/imagenet", "--output", "{out}"),
    "render": ("data", "synthetic", "--out", "{out}/data", "--scale", "0.01", "--processes", "2"),
    "evaluate": (
        *("evaluate", "--run", "{run}", "--suite", "clean,calibration,confusion,fgsm"),
        *("--device", "cpu", "--output", "{out}/out.json"),
    ),
    "localize": (
        *("localize", "--dataset", "cub", "--root", "{data}/CUB_200_2011", "--checkpoint", "{run}/last.pt"),
        *(
            "--cam-class",
            "predicted",
            "--device",
            "cpu",
            "--save-maps",
            "{out}/maps",
            "--output",
            "{out}/wsol.json",
        ),
    ),
    "export": (
        *("export", "--checkpoint", "{run}/last.pt", "--to", "detectron2", "--output", "{out}/r10.pkl"),
    ),
    "supermix": (
        *("supermix", "--config-file", "cifar100_r18_supermix", "--teacher", "{run}/last.pt"),
        *("--output", "{out}/mixed", "--count", "4", "data.dataset=imagefolder", "data.classes=0"),
        *(
            "data.root={data}/imagenet",
            "data.limit_per_class=4",
            *SHORT,
            "data.workers=0",
            "method.iterations=10",
        ),
    ),
}
#: trainings have more instants, and are killed in more chains
ORDER = (
    *("pretrain", "detect", "finetune", "render", "pretrain", "evaluate", "detect", "pack"),
    *("finetune", "localize", "pretrain", "detect", "export", "supermix"),
)
#: modules that a fork has in memory already
IMPORTED = (
    *("commands.pretrain", "commands.finetune", "commands.detect", "detection.trainer"),
    *("synthetic.write", "evaluation.cli", "commands.localize", "commands.export", "commands.write_supermix"),
    "data.shards.packing",
    "training.loop",
)
KILLS, COLD, PATIENCE = (
    6,
    0.125,
    120.0,
)  # of a chain, share of new interpreters, seconds for a signal to be obeyed
STOPPED = re.compile(r"model_\d{7}\.pth")
OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


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


class Process:
    """A command that has been started, leading a group of processes; its words go to ``log``."""

    def __init__(self, words: Sequence[str], log: Path, cold: bool) -> None:
        self.code: int | None = None
        with log.open("ab") as file:
            if cold:
                self.pid = subprocess.Popen(
                    command(*words),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=hear_all,
                ).pid
                return
            sys.stdout.flush()
            self.pid = os.fork()
            if not self.pid:
                _become(words, file.fileno())

    def poll(self) -> int | None:
        """The exit code, as `subprocess` gives it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = 3600.0) -> int | None:
        """Its exit code; None where it still runs after ``seconds``."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return self.code

    def send(self, number: int, group: bool) -> None:
        """A signal to it, or to its group too."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def leaves_others(self, seconds: float = 20.0) -> bool:
        """Whether a process of its group outlives it by ``seconds``; it is ended then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        self.send(signal.SIGKILL, True)
        return True


def hear_all() -> None:
    """The signals as a shell in a terminal leaves them to a command."""
    for number in OBEYED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)


def _become(words: Sequence[str], output: int) -> None:
    """Be the command ``words``, in a fork, and end."""
    code: Any = 1
    try:
        os.setsid()
        hear_all()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [PROGRAM, *words]
        from automix_transfer.cli import console

        console()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


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


def ended(process: Process, log: Path) -> None:
    """Wait for a command that nobody disturbs.

    Raises:
        UserError: it failed, or left a process.
    """
    code = process.wait()
    if code or process.leaves_others():
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"it ended with exit code {code}, see {log}: {last}")


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
