"""Damaged and hostile files before every reader: each must be refused in one sentence, or read.

python benchmarks/mutations.py                             # 1,000 files in this process
python benchmarks/mutations.py --count 100000 --seed 7 --output runs/mutations       # as long as one likes
python benchmarks/mutations.py --readers coco voc --count 2000                       # some of the readers
python benchmarks/mutations.py --commands 30              # as commands, by exit code

A valid file of each kind is made, then changed: bits, bytes, lines, numbers, words, nesting, lengths. It may
end in a `UserError` (an `OSError` that names its file is one, too), or in a result. Anything else is printed,
and its files stay in --output. Changes that do not touch the data (a BOM, line ends, blank space at the end,
JSON written otherwise) must give the result of the file as it was. A reader has 20 seconds and 1 GB beyond
what is there when it starts. The seed decides everything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutation_targets import TARGETS, Target

from automix_transfer.command_line import command
from automix_transfer.errors import UserError, run_script
from automix_transfer.progress import Progress

SECONDS, MEMORY = 20, 1 << 30
MOST_LINES = 25  #: of a list of problems
HOSTILE = (
    *("-1", "0", "nan", "NaN", "inf", "-Infinity", "1e308", "1e-320", "9" * 400, "9" * 5000, "2147483648"),
    *("0x10", "true", "null", "~", "[]", "{}", '""', "\0", "\x1b[31m", "é", "\ud800", "١٢", "%s", "{x}"),
    *("../../etc/passwd", "/dev/zero", "http://127.0.0.1/x", "$(id)", "${oc.env:HOME}", "&a", "*a", "<<: *a"),
    "!!python/name:os.system",
)
NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
WORD = re.compile(r"[A-Za-z_]\w+")


class TooLong(Exception):
    """A reader took more than `SECONDS`."""


@dataclass
class Outcome:
    """What became of one file. ``kind``: ``read``, ``refused``, or what is wrong."""

    kind: str
    text: str = ""


# What is changed


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Bits, spans and lengths, as bad disks, broken downloads and people with hex editors change them."""
    data = bytearray(content)
    place = rng.randrange(len(data) + 1)
    end = min(len(data), place + rng.choice([1, 4, 16, 256, 4096]))
    match rng.randrange(8):
        case 0:
            for _ in range(rng.choice([1, 8, 64])):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[place:end] = rng.randbytes(end - place)
        case 2:
            del data[place:end]
        case 3:
            data[place:place] = rng.randbytes(rng.choice([1, 4, 16, 256]))
        case 4:
            del data[place:]
        case 5:
            data[place:end] = bytes(end - place)
        case 6:
            data[place:place] = data[place:end] * rng.choice([1, 2, 50])
        case 7:
            data[place : place + 8] = rng.choice([b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 7 + b"\x80"])
    return bytes(data)


def text_changed(text: str, rng: random.Random) -> str:
    """Numbers, words, lines and nesting, as other tools and people write them."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0 | 1:
            return replaced(text, NUMBER, rng.choice(HOSTILE), rng)
        case 2:
            return replaced(text, WORD, rng.choice(HOSTILE), rng)
        case 3:
            del lines[place]
        case 4:
            lines[place:place] = [lines[rng.randrange(len(lines))]] * rng.choice([1, 3, 200])
        case 5:
            lines[place] = rng.choice(HOSTILE)
        case 6:
            depth = rng.choice([10, 1000, 100_000])
            return replaced(text, NUMBER, "[" * depth + "1" + "]" * depth, rng)
        case 7:
            lines[place] = lines[place].replace(
                rng.choice([" ", ",", ":", '"', "<", "{"]), rng.choice(["", ";", "\t"])
            )
    return "\n".join(lines)


def replaced(text: str, what: re.Pattern[str], by: str, rng: random.Random) -> str:
    """``text`` with one place that ``what`` finds changed."""
    found = list(what.finditer(text))
    if not found:
        return text + by
    chosen = rng.choice(found)
    return text[: chosen.start()] + by + text[chosen.end() :]


def untouched(name: str, content: bytes, rng: random.Random) -> bytes | None:
    """The same data, written otherwise; None where this kind of file has no other way."""
    if name.endswith(".json"):
        other = json.dumps(json.loads(content), indent=rng.choice([None, 1, 4])).encode()
        return rng.choice([other, b"\xef\xbb\xbf" + content, content + b"\n \n"])
    if name.endswith((".txt", ".csv", ".yaml", ".xml")):
        return rng.choice([b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content + b"\n"])
    return None


# What is tried


def attempt(target: Target, folder: Path) -> tuple[Outcome, Any]:
    """Read what lies in ``folder``, within the time and the memory."""

    def stop(*_: object) -> None:
        raise TooLong

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return Outcome("read"), target.read(folder)
    except UserError as error:
        lines = str(error).splitlines()
        return Outcome("refused" if len(lines) <= MOST_LINES else "long", str(error)), None
    except OSError as error:
        return Outcome("refused" if error.filename else "traceback", traceback.format_exc()), None
    except TooLong:
        return Outcome("too long", traceback.format_exc()), None
    except MemoryError:
        return Outcome("memory", traceback.format_exc()), None
    except Exception:  # noqa: BLE001 - this is what is looked for
        return Outcome("traceback", traceback.format_exc()), None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def change(target: Target, folder: Path, rng: random.Random) -> tuple[str, bool]:
    """Change one file of ``folder``; what was done, and whether the data are the same."""
    file = folder / rng.choice(target.changed(folder))
    content = file.read_bytes()
    same = untouched(file.name, content, rng) if rng.random() < 0.15 else None
    if same is not None:
        file.write_bytes(same)
        return f"{file.name}, written otherwise", True
    text = None if target.binary or rng.random() < 0.3 else content.decode("utf-8", "surrogateescape")
    if text is None:
        file.write_bytes(bytes_changed(content, rng))
    else:
        file.write_bytes(text_changed(text, rng).encode("utf-8", "surrogatepass"))
    return f"{file.name}, {'bytes' if text is None else 'text'} changed", False


def in_process(options: argparse.Namespace) -> int:
    """Try ``--count`` files, the readers in turn; the number of those that went wrong."""
    kinds: Counter[tuple[str, str]] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        originals = prepared(options.readers, Path(temporary))
        expected = {}
        for name, original in originals.items():
            folder = shutil.copytree(original, Path(temporary) / "now")
            expected[name] = attempt(TARGETS[name], folder)
            shutil.rmtree(folder)
        if bad := {name: outcome for name, (outcome, _) in expected.items() if outcome.kind != "read"}:
            raise UserError(f"valid files were not read: {bad}")
        progress = Progress("mutations", "files")
        for number in range(options.count):
            name = options.readers[number % len(options.readers)]
            rng = random.Random(f"{options.seed} {number}")
            folder = Path(temporary) / "now"
            shutil.copytree(originals[name], folder)
            said, same = change(TARGETS[name], folder, rng)
            outcome, result = attempt(TARGETS[name], folder)
            if same and (outcome.kind != "read" or result != expected[name][1]):
                outcome = Outcome("other result", f"{outcome.kind} {outcome.text}")
            kinds[name, outcome.kind] += 1
            if outcome.kind not in ("read", "refused"):
                wrong += 1
                report(f"{name} {number}: {said}: {outcome.kind}", outcome.text, folder, number, options)
            shutil.rmtree(folder)
            progress(number + 1, options.count)
    for name in options.readers:
        counts = {kind: count for (reader, kind), count in sorted(kinds.items()) if reader == name}
        print(f"{name:<20} {'  '.join(f'{kind} {count}' for kind, count in counts.items())}")
    print(f"{options.count - wrong} of {options.count} read or refused in one sentence")
    return wrong


def as_commands(options: argparse.Namespace) -> int:
    """Try ``--commands`` files by whole commands: exit code 0, or 2 with one ``error:`` line."""
    named = [name for name in options.readers if TARGETS[name].command]
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        originals = prepared(named, Path(temporary))
        for number in range(options.commands):
            name = named[number % len(named)]
            folder = Path(temporary) / "now"
            shutil.copytree(originals[name], folder)
            said, _ = change(TARGETS[name], folder, random.Random(f"{options.seed} command {number}"))
            words = [word.format(folder=folder) for word in TARGETS[name].command]
            try:
                done = subprocess.run(
                    command(*words), capture_output=True, text=True, errors="replace", timeout=180
                )
                text, code = done.stdout + done.stderr, done.returncode
            except subprocess.TimeoutExpired:
                text, code = "", -1
            fine = code == 0 or (code == 2 and "error:" in text)
            if not fine or "Traceback" in text:
                wrong += 1
                report(f"{name} {number}: {said}: exit code {code}", text[-3000:], folder, number, options)
            print(f"{number + 1}/{options.commands} {name}: {said}: exit code {code}", flush=True)
            shutil.rmtree(folder)
    print(f"{options.commands - wrong} of {options.commands} commands ended as they should")
    return wrong


def prepared(names: list[str], folder: Path) -> dict[str, Path]:
    """A folder with the valid files of each reader."""
    originals = {}
    for name in names:
        originals[name] = folder / name
        originals[name].mkdir()
        TARGETS[name].make(originals[name])
    return originals


def report(head: str, text: str, folder: Path, number: int, options: argparse.Namespace) -> None:
    """Say what went wrong, and keep the files."""
    print(f"\n{head}\n{text.strip()[-2500:]}\n", file=sys.stderr, flush=True)
    if options.output:
        shutil.copytree(folder, options.output / str(number), dirs_exist_ok=True)


def main() -> int:
    """Exit code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="files to try (default %(default)s)")
    parser.add_argument("--commands", type=int, default=0, help="try this many by whole commands instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=list(TARGETS), default=list(TARGETS), metavar="NAME")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the files that went wrong")
    options = parser.parse_args()
    wrong = as_commands(options) if options.commands else in_process(options)
    return 1 if wrong else 0


if __name__ == "__main__":
    run_script(main)
