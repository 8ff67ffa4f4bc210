"""Commands killed at any instant: the same command again must end as if nothing had happened.

python benchmarks/kills.py --output runs/kills                       # 200 kills, all commands in turn
python benchmarks/kills.py --output runs/kills --kills 20 --commands pretrain detect
python benchmarks/kills.py --output runs/kills --soak 6              # train for 6 hours under random signals

Each command first runs undisturbed. Then, for each kill, it is started in a new folder, killed by SIGKILL
after a time that the seed draws from the undisturbed run's, started again with the same words, and what it
leaves is compared: tensors bit by bit, results without times, all other files as bytes.

The soak trains in a loop and sends SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGKILL at random. Memory and open
files go to soak.csv; at the end of each start both must be what they were ten minutes after its beginning.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from automix_transfer.command_line import command
from automix_transfer.errors import UserError, run_script

SHORT = (
    "train.device=cpu",
    "data.workers=0",
    "train.log_every=1",
    "data.limit_per_class=6",
    "train.batch_size=16",
)
#: what each command says; {data}: the embedded data, {run}: a finished pretraining, {out}: where it writes
COMMANDS: dict[str, tuple[str, ...]] = {
    "pretrain": (
        *("pretrain", "--config-file", "embedded_r10_automix", "--resume", "data.root={data}/imagenet"),
        *(*SHORT, "train.epochs=2", "train.picture_epochs=[1]", "train.save_every_steps=2", "output={out}"),
    ),
    "finetune": (
        *("finetune", "--config-file", "embedded_cub", "--resume", "data.root={data}/CUB_200_2011", *SHORT),
        *("train.epochs=2", "encoder.weights={run}/last.pt", "output={out}"),
    ),
    "detect": (
        *("detect", "train", "--config-file", "embedded_R10_FPN", "--num-gpus", "0", "--resume"),
        *(
            "--data-root",
            "{data}/VOC2007",
            "MODEL.WEIGHTS",
            "",
            "SOLVER.MAX_ITER",
            "6",
            "SOLVER.WARMUP_ITERS",
            "2",
        ),
        *("SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "3", "OUTPUT_DIR", "{out}"),
    ),
    "pack": ("data", "pack", "--dataset", "imagefolder", "--root", "{data}/imagenet", "--output", "{out}"),
    "render": ("data", "synthetic", "--out", "{out}/data", "--scale", "0.03", "--processes", "1"),
    "evaluate": (
        "evaluate",
        "--run",
        "{run}",
        "--suite",
        "clean,calibration,fgsm",
        "--output",
        "{out}/out.json",
    ),
    "localize": (
        *("localize", "--dataset", "cub", "--root", "{data}/CUB_200_2011", "--checkpoint", "{run}/last.pt"),
        *("--output", "{out}/wsol.json"),
    ),
}
#: files that say when, where and how fast
PASSING = (
    "log.*",
    "run.json",
    "*.lock",
    "events.out.*",
    "previous.pt",
    "config.yaml",
    "*.html",
    "last_checkpoint",
)
#: words in keys that are about time, place or the number of starts
TIMES = ("seconds", "time", "images_per_s", "data_share", "command", "output", "OUTPUT_DIR", "commit")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)


def digest(folder: Path) -> dict[str, str]:
    """What is left in ``folder`` for the user, file by file."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if any(file.match(pattern) for pattern in PASSING):
            continue
        if file.suffix in (".pt", ".pth"):
            content = torch.load(file, map_location="cpu", weights_only=False)
            found[name] = hashlib.sha256("".join(flat(content)).encode()).hexdigest()
        elif file.suffix == ".json":
            text = file.read_text()
            try:
                values = json.loads(text)
            except json.JSONDecodeError:  # Detectron2's metrics.json: an object a line
                values = [json.loads(line) for line in text.splitlines()]
            found[name] = "".join(flat(values)).replace(str(folder), "")
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def flat(value: Any, key: str = "") -> Iterator[str]:
    """Every value of nested ones, as text; tensors by their bits; without what is about time."""
    if isinstance(value, torch.Tensor):
        data = (
            value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            if value.numel()
            else b""
        )
        yield f"{key}={hashlib.sha256(data).hexdigest()};"
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if not any(word in str(name) for word in TIMES):
                yield from flat(one, f"{key}/{name}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from flat(one, f"{key}/{number}")
    else:
        yield f"{key}={value};"


def start(words: tuple[str, ...], names: Mapping[str, Path], log: Path) -> subprocess.Popen[bytes]:
    """A command, with its output in ``log``, leading a group of processes."""
    with log.open("ab") as file:
        line = command(*(word.format(**names) for word in words))
        return subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True)


def finish(words: tuple[str, ...], names: Mapping[str, Path], log: Path) -> float:
    """Run a command to its end; the seconds that it took.

    Raises:
        UserError: it failed.
    """
    begin = time.monotonic()
    if code := start(words, names, log).wait():
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"{' '.join(words[:2])} ended with exit code {code}, see {log}: {last}")
    return time.monotonic() - begin


def prepared(output: Path) -> dict[str, Path]:
    """The data and the run that the commands use."""
    names = {"data": output / "data", "run": output / "run", "out": output / "run"}
    output.mkdir(parents=True, exist_ok=True)
    finish(("data", "synthetic", "--out", "{data}", "--scale", "0.05"), names, output / "prepare.log")
    finish(COMMANDS["pretrain"], names, output / "prepare.log")
    return names


def kill_all(options: argparse.Namespace) -> int:
    """``--kills`` of ``--commands`` in turn; the number of those that left a trace."""
    names, rng = prepared(options.output), random.Random(options.seed)
    whole: dict[str, tuple[float, dict[str, str]]] = {}
    outcome: Counter[str] = Counter()
    for number in range(options.kills):
        name = options.commands[number % len(options.commands)]
        folder = options.output / f"{name}_whole"
        if name not in whole:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            seconds = finish(COMMANDS[name], names | {"out": folder}, options.output / f"{name}.log")
            whole[name] = seconds, digest(folder)
        seconds, expected = whole[name]
        folder = options.output / f"{name}_{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        log, delay = options.output / f"{name}_{number}.log", rng.uniform(0, seconds)
        process = start(COMMANDS[name], names | {"out": folder}, log)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        try:
            finish(COMMANDS[name], names | {"out": folder}, log)
            found = digest(folder)
            differing = [file for file in {**expected, **found} if expected.get(file) != found.get(file)]
            said = f"differs in {', '.join(differing[:3])}" if differing else ""
        except UserError as error:
            said = str(error)
        outcome["left a trace" if said else "as undisturbed"] += 1
        when = f"killed after {delay:.1f} of {seconds:.1f} s"
        print(f"{number + 1}/{options.kills} {name} {when}: {said or 'equal'}", flush=True)
        if not said:
            shutil.rmtree(folder)
            log.unlink()
    print(", ".join(f"{count} {kind}" for kind, count in outcome.items()))
    return outcome["left a trace"]


def soak(options: argparse.Namespace) -> int:
    """Train for ``--soak`` hours under random signals; 1 where memory or files grew."""
    names, rng = prepared(options.output), random.Random(options.seed)
    folder = options.output / "soak"
    words = (*COMMANDS["pretrain"][:-1], "train.epochs=100000", "output={out}")
    begin, rows = time.monotonic(), []
    end = begin + 3600 * options.soak
    while time.monotonic() < end:
        process = start(words, names | {"out": folder}, options.output / "soak.log")
        until = min(end, time.monotonic() + rng.uniform(60, 1200))
        while time.monotonic() < until and process.poll() is None:
            time.sleep(10)
            rows.append((time.monotonic() - begin, process.pid, *usage(process.pid)))
        sent = rng.choice(SIGNALS)
        if process.poll() is None:
            os.kill(process.pid, sent)
        code = process.wait()
        print(f"{(time.monotonic() - begin) / 3600:.2f} h: {sent.name}, exit code {code}", flush=True)
        if code not in (-sent, 128 + sent):
            return 1
    with (options.output / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("seconds", "pid", "rss_mb", "open_files"), *rows])
    grown = 0
    for pid in {row[1] for row in rows}:
        mine = [row for row in rows if row[1] == pid and row[2]]
        settled = [row for row in mine if row[0] - mine[0][0] >= 600]
        if settled:
            grown |= settled[-1][2] > 1.05 * settled[0][2] or settled[-1][3] > settled[0][3]
    print("memory or open files grew" if grown else "memory and open files stayed")
    return int(grown)


def usage(pid: int) -> tuple[float, int]:
    """Resident memory (MB) and open files of a process; zeros where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0.0, 0


def main() -> int:
    """Exit code 1 where a kill left a trace, or the soak grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kills", type=int, default=200, help="default %(default)s")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--soak", type=float, metavar="HOURS", help="train under random signals instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return 1 if (soak(options) if options.soak else kill_all(options)) else 0


if __name__ == "__main__":
    run_script(main)
