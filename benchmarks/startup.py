"""How long a command takes before it does anything: CPU time of every --help and --list, and of a training up
to its first image beside that of importing torch, torchvision and timm.

    python benchmarks/startup.py --output benchmarks/results/startup.md

CPU time, which other work on the machine changes little; each figure is the median of --repeats processes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    file for room in ("pretrain", "detection", "wsol", "finegrained") for file in (ROOT / room).glob("*.py")
)
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "numba", "scipy", "detectron2")
LIMIT, RATIO = 0.5, 1.3  #: seconds of a --help; of the first image, beside the imports
IMPORTS = "import torch, torchvision, timm"
#: Runs a training until it opens an image, and prints the CPU time and what is imported by then.
FIRST_IMAGE = """
import os, sys, time
def seen(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".png", ".jpg", ".JPEG")):
        os.write(1, f"{time.process_time():.3f} {len(sys.modules)}\\n".encode())
        os._exit(0)
sys.addaudithook(seen)
from automix_transfer.cli import console
console("pretrain")
"""


def every_help() -> Iterator[tuple[list[str], int, list[str]]]:
    """Every --help and --list, one after another in this process: the words, the exit code, and which of
    `HEAVY` are imported by then."""
    from automix_transfer import cli

    waiting = [[], *([name] for name in cli.COMMANDS)]
    waiting += [[name, below] for name, more in cli.SUBCOMMANDS.items() for below in more]
    add = argparse._SubParsersAction.add_parser
    below: list[str] = []

    def noted(self: Any, name: str, **options: Any) -> Any:
        below.append(name)
        return add(self, name, **options)

    argparse._SubParsersAction.add_parser = noted  # type: ignore[method-assign]
    for words in waiting:  # which grows
        below.clear()
        code, text = ended([*words, "--help"])
        yield [*words, "--help"], code, imported()
        if len(words) < 2:
            waiting += [[*words, name] for name in below]
        if re.search(r"^  --list\b", text, re.MULTILINE):
            code, _ = ended([*words, "--list"])
            yield [*words, "--list"], code, imported()
    for script in SCRIPTS:
        code, _ = ended(["--help"], lambda script=script: runpy.run_path(str(script), run_name="__main__"))
        yield [str(script.relative_to(ROOT)), "--help"], code, imported()


def ended(words: Sequence[str], start: Callable[[], Any] | None = None) -> tuple[int, str]:
    """The exit code and the output of ``automix-transfer WORDS``, run in this process."""
    from automix_transfer.cli import console

    sys.argv[:] = ["automix-transfer", *words]
    text = io.StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        try:
            (start or console)()
        except SystemExit as stopped:
            return int(stopped.code or 0), text.getvalue()
    return 0, text.getvalue()


def imported() -> list[str]:
    """Which of `HEAVY` this process has imported."""
    return [name for name in HEAVY if name in sys.modules]


def cpu_seconds(command: Sequence[str], repeats: int) -> float:
    """The median CPU time of a process, its children included."""
    taken = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def first_image(data: Path, repeats: int) -> tuple[float, float]:
    """CPU seconds of a training up to its first image, and of `IMPORTS`, each in turn."""
    training, imports = [], []
    given = ["--config-file", "embedded_r10_vanilla", f"data.root={data / 'imagenet'}", "data.workers=0"]
    for number in range(repeats):
        words = [*given, f"output={data / f'run{number}'}", "train.device=cpu"]
        done = subprocess.run(
            [sys.executable, "-c", FIRST_IMAGE, *words], capture_output=True, text=True, check=True
        )
        training.append(float(done.stdout.split()[0]))
        code = f"{IMPORTS}, time; print(time.process_time())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        imports.append(float(done.stdout))
    return statistics.median(training), statistics.median(imports)


def report(helps: dict[str, float], training: float, imports: float, repeats: int) -> str:
    """The page of results."""
    rows = [
        f"| `{words}` | {seconds:.2f} |" for words, seconds in sorted(helps.items(), key=lambda row: -row[1])
    ]
    return "\n".join(
        [
            "# How quickly commands begin",
            "",
            f"`python benchmarks/startup.py`, {platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}; CPU seconds of a process, the median of {repeats}.",
            "",
            f"A training opens its first image after {training:.2f} s; `{IMPORTS}` takes {imports:.2f} s: "
            f"{training / imports:.2f} times that (at most {RATIO} is the aim).",
            "",
            f"The slowest `--help` takes {max(helps.values()):.2f} s (at most {LIMIT} is the aim); none "
            f"imports {', '.join(HEAVY[:-1])} or {HEAVY[-1]} (`tests/test_quick.py`).",
            "",
            "| automix-transfer … | seconds |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--look", action="store_true", help="print what every --help imports as JSON, and stop"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="write the page, besides printing it")
    options = parser.parse_args()
    if options.look:
        print(json.dumps(list(every_help())))
        return
    look = subprocess.run([sys.executable, __file__, "--look"], capture_output=True, text=True, check=True)
    asked = [words for words, *_ in json.loads(look.stdout) if not words[0].endswith(".py")]
    start = [sys.executable, "-m", "automix_transfer"]
    helps = {" ".join(words): cpu_seconds([*start, *words], options.repeats) for words in asked}
    with tempfile.TemporaryDirectory() as folder:
        data = [*start, "data", "synthetic", "--out", folder, "--scale", "0.05"]
        subprocess.run(data, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        training, imports = first_image(Path(folder), options.repeats)
    page = report(helps, training, imports, options.repeats)
    print(page)
    if options.output:
        options.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
