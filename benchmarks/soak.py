"""Training for hours under random signals: memory and open files must stay.

python benchmarks/kills.py --output runs/soak --soak 6     # hours in all; the same line goes on after any end

One run is started again and again, each time for one to five or, every third time, for 25 to 45 minutes; then
it gets SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGKILL. soak.csv holds memory and open files of the training
process every 15 seconds, soak.md what became of each start and of those that lived for more than 12 minutes:
their memory at the end by that after ten minutes (medians of two minutes; at most 1.05), and open files (the
fewest in those minutes, since a checkpoint that is being written opens some for a moment).
"""

from __future__ import annotations

import csv
import os
import random
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kills_commands import COMMANDS
from kills_process import OBEYED, hear_all
from tabulate import tabulate

from automix_transfer.command_line import command
from automix_transfer.errors import UserError
from automix_transfer.io import write_text
from automix_transfer.signals import tied

EVERY, SETTLED, LONG, MOST = 15.0, 600.0, 720.0, 1.05
HEAD = ("start", "seconds", "rss_mb", "open_files", "end")
Row = tuple[int, float, float, int, str]


def soak(output: Path, hours: float, seed: int) -> int:
    """Train up to ``hours`` in all; 1 where memory or open files grew."""
    data, log, file = output / "data", output / "soak.log", output / "soak.csv"
    _finish(["data", "synthetic", "--out", str(data), "--scale", "0.1", "--processes", "1"], log)
    more = {"train.epochs=2": "train.epochs=100000", "data.workers=0": "data.workers=1"}
    more |= {"train.save_every_steps=1": "train.save_every_steps=20", "data.limit_per_class=3": "seed=0"}
    words = [more.get(word, word).format(data=data, out=output / "run") for word in COMMANDS["pretrain"]]
    rows = read(file)
    if not rows:
        write_text(file, ",".join(HEAD) + "\n")
    while (done := hours_of(rows)) < hours:
        start = max((row[0] for row in rows), default=-1) + 1
        rng = random.Random(f"{seed} {start}")
        life = 60 * (rng.uniform(25, 45) if start % 3 == 2 else rng.uniform(1, 5))
        for row in _one(
            words, log, start, min(life, 3600 * (hours - done)), rng.choice((*OBEYED, signal.SIGKILL))
        ):
            rows.append(row)
            with file.open("a", newline="", encoding="utf-8") as table:
                csv.writer(table).writerow(row)
        text, grown = summary(rows)
        write_text(output / "soak.md", text)
        print(f"{hours_of(rows):.2f} h of {hours:g}, start {start}: {rows[-1][4]}", flush=True)
    text, grown = summary(rows)
    print(text)
    return int(grown)


def _finish(words: Sequence[str], log: Path) -> None:
    with log.open("ab") as file:
        if subprocess.call(command(*words), stdout=file, stderr=file):
            raise UserError(f"{' '.join(words[:2])} failed, see {log}")


def _one(words: Sequence[str], log: Path, start: int, life: float, number: signal.Signals):
    """Start the training, and send it a signal after ``life`` seconds; yields what it uses."""
    begin = time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(
            tied(command(*words)), stdout=file, stderr=file, process_group=0, preexec_fn=hear_all
        )
    used = usage(process.pid)
    while time.monotonic() < begin + life and process.poll() is None:
        time.sleep(min(EVERY, max(0.0, begin + life - time.monotonic())))
        if found := usage(process.pid):
            used = found
            yield start, round(time.monotonic() - begin, 1), *used, ""
    if process.poll() is None:
        process.send_signal(number)
    code = process.wait()
    fits = code in (-number, 128 + number)
    said = f"{number.name}, exit code {code}" + ("" if fits else ", which is wrong")
    yield start, round(time.monotonic() - begin, 1), *(used or (0.0, 0)), said
    if not fits:
        raise UserError(f"start {start} ended with exit code {code} at {number.name}, see {log}")


def usage(pid: int) -> tuple[float, int] | None:
    """Resident memory (MB) and open files of a process; None where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1), len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def read(file: Path) -> list[Row]:
    """The record; half a line at its end is left out."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    write_text(file, whole)
    return [
        (int(row["start"]), float(row["seconds"]), float(row["rss_mb"]), int(row["open_files"]), row["end"])
        for row in csv.DictReader(whole.splitlines())
    ]


def hours_of(rows: Sequence[Row]) -> float:
    """Hours that all starts have trained."""
    longest: dict[int, float] = {}
    for row in rows:
        longest[row[0]] = max(longest.get(row[0], 0.0), row[1])
    return sum(longest.values()) / 3600


def summary(rows: Sequence[Row]) -> tuple[str, bool]:
    """What the record says, in Markdown, and whether memory or open files grew."""
    ends = Counter(row[4] for row in rows if row[4])
    lines, grown = [], False
    for start in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == start and row[2]]
        if not mine or (last := mine[-1][1]) < LONG:
            continue
        settled = [row for row in mine if abs(row[1] - SETTLED) <= 60]
        final = [row for row in mine if row[1] >= last - 120]
        memory = [statistics.median(row[2] for row in part) for part in (settled, final)]
        files = [min(row[3] for row in part) for part in (settled, final)]
        ratio = memory[1] / memory[0]
        grown |= ratio > MOST or files[1] > files[0]
        lines.append((start, last / 60, *memory, ratio, *files))
    head = (
        "start",
        "minutes",
        "MB at 10 min",
        "MB at the end",
        "ratio",
        "files at 10 min",
        "files at the end",
    )
    count = len({row[0] for row in rows})
    said = ", ".join(f"{number} x {end}" for end, number in sorted(ends.items())) or "none yet"
    text = f"{hours_of(rows):.2f} hours in {count} starts; ends: {said}\n\n"
    return text + tabulate(lines, head, "github", floatfmt=("", ".1f", ".1f", ".1f", ".3f")) + "\n", grown
