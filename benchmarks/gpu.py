r"""A GPU's first ten minutes: what this machine does with every part of the toolkit, on one page.

python benchmarks/gpu.py                    # at most 8 minutes; writes benchmarks/results/gpu-NAME.md
python benchmarks/gpu.py --reduced          # small networks and few images: a CPU does it in minutes
python benchmarks/gpu.py --parts steps_fp32 syncs --minutes 3

Each part is a process of its own, so that one that fails, hangs or leaves its GPU broken is written as
failed, with its sentence, and the others go on. The time is shared out by weight; what one part leaves over
goes to the later ones. A part stops measuring at four fifths of its share and is ended when its share is
over; parts for which no time is left are written as skipped. The exit code is 1 if a part failed or was
skipped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gpu_loops as loops
import gpu_steps as steps
import gpu_tasks as tasks
from gpu_setting import GPU, REDUCED, Found, Setting

from automix_transfer.errors import UserError, first_line, run_script
from automix_transfer.io import write_text

RESULTS = Path(__file__).resolve().parent / "results"
LEAST = 5.0  #: seconds that are worth starting a part for


@dataclass(frozen=True)
class Part:
    """One section of the page: its title, its function, and its share of the time that is left."""

    title: str
    run: Callable[[Setting, float], Found]
    weight: float


PARTS = {
    "steps_fp32": Part("Steps in fp32", partial(steps.steps, precision="fp32"), 4),
    "steps_bf16": Part("Steps in bf16", partial(steps.steps, precision="bf16"), 3),
    "steps_channels_last": Part(
        "Steps in bf16, channels last", partial(steps.steps, precision="bf16", channels_last=True), 3
    ),
    "steps_checkpointing": Part(
        "Steps in bf16, channels last, with gradient checkpointing",
        partial(steps.steps, precision="bf16", channels_last=True, checkpointing=True),
        3,
    ),
    "agreement": Part("Lower precision against fp32", steps.agreement, 2),
    "syncs": Part("Waiting for the GPU within a step", loops.syncs, 2),
    "fp16": Part("Overflow in fp16", loops.fp16, 1),
    "loader": Part("Images a second beside timm's plain loop", tasks.loader, 4),
    "detector": Part("A detector's iteration", tasks.detector, 3),
    "wsol": Part("Localization", tasks.wsol, 2),
    "steps_compiled": Part(
        "Steps in bf16, channels last, compiled",
        partial(steps.steps, precision="bf16", channels_last=True, compiled=True),
        6,
    ),
}


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="auto", help="cuda, cuda:1 or, with --reduced, cpu (default: auto)"
    )
    parser.add_argument("--reduced", action="store_true", help="small networks, few images, one round")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default %(default)s)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--output", type=Path, help="the page; default benchmarks/results/gpu-NAME.md")
    options = parser.parse_args()
    if not options.minutes > 0:
        raise UserError(f"--minutes {options.minutes} must be more than 0")
    began = time.monotonic()
    end = began + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="automix_transfer_gpu_", ignore_cleanup_errors=True) as folder:
        setting = (REDUCED if options.reduced else GPU).on(options.device, folder)
        machine = in_process(loops.machine, setting, end)
        if isinstance(machine, str):
            raise UserError(machine)
        print(machine.lines[0], flush=True)
        setting = setting.on(machine.device, folder)
        if machine.device == "cpu" and not options.reduced:
            raise UserError("no GPU is visible; --reduced measures a small form on the CPU")
        data = in_process(loops.data, setting, end)
        sections, failed = [], [f"data: {data}"] if isinstance(data, str) else []
        for number, name in enumerate(options.parts):
            section, problem = measured(name, options.parts[number:], setting, end, machine.name)
            print(f"{name}: {problem or 'done'}", flush=True)
            sections.append(section)
            failed += [f"{name}: {problem}"] if problem else []
    words = re.sub(r"[^a-z0-9]+", "-", machine.name.lower()).strip("-")
    page = options.output or RESULTS / f"gpu-{words}{'-reduced' * options.reduced}.md"
    took = (time.monotonic() - began) / 60
    write_text(page, page_text(machine, sections, failed, options, took))
    print(f"{page} is written after {took:.1f} minutes")
    return 1 if failed else 0


def measured(name: str, waiting: list[str], setting: Setting, end: float, device: str) -> tuple[str, str]:
    """The page's section of a part, and what went wrong; ``waiting``: it and the parts behind it."""
    part, left = PARTS[name], end - time.monotonic()
    heading = f"## {part.title} ({device})\n\n"
    if left < LEAST:
        return f"{heading}Skipped: the time was out.", "skipped: the time was out"
    share = left * part.weight / sum(PARTS[other].weight for other in waiting)
    found = in_process(part.run, setting, time.monotonic() + share)
    if isinstance(found, str):
        return f"{heading}**Failed**: {found}", found
    verdict = [f"\n**Failed**: {found.problem}"] if found.problem else []
    return heading + "\n".join([*found.lines, *verdict]), found.problem


def page_text(
    machine: Found, sections: list[str], failed: list[str], options: argparse.Namespace, minutes: float
) -> str:
    """The whole page, Markdown."""
    command = f"python benchmarks/gpu.py{' --reduced' * options.reduced}"
    if options.parts != list(PARTS):
        command += f" --parts {' '.join(options.parts)}"
    what = "All parts went well." if not failed else f"{len(failed)} parts failed: {'; '.join(failed)}."
    head = [
        f"# {machine.name}{', reduced' * options.reduced}",
        f"[Summary](../RESULTS.md). Written on {time.strftime('%Y-%m-%d')} by `{command}` in {minutes:.1f} "
        f"minutes. Every figure is of one {machine.name}; seconds are medians over rounds in which those "
        f"that are compared took turns. {what}",
        "\n".join(machine.lines[1:]),
    ]
    return "\n\n".join([*head, *sections]) + "\n"


def in_process(run: Callable[[Setting, float], Found], setting: Setting, end: float) -> Found | str:
    """What ``run(setting, until)`` finds in a process of its own, or a sentence on why it found nothing.

    This process never asks for the GPU, so that its forks can; they need not import everything again.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    log, share = Path(setting.folder) / "log.txt", max(end - time.monotonic(), LEAST)
    until = time.monotonic() + 0.8 * share
    process = context.Process(target=_work, args=(run, setting, until, theirs, log))
    process.start()
    theirs.close()
    try:
        if not ours.poll(share):
            return f"it was ended when its share of the time was over ({share:.0f} s); give more --minutes"
        return ours.recv()
    except EOFError:
        process.join(5)
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"its process ended with code {process.exitcode}: {first_line(RuntimeError(said[-1]))}"
    finally:
        end_group(process)


def _work(run: Callable, setting: Setting, until: float, answer: Connection, log: Path) -> None:
    """In the process of a part: all output goes to ``log``, the finding or one sentence to ``answer``."""
    os.setsid()  # its loaders' processes end with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    found: Any
    try:
        found = run(setting, until)
    except BaseException as error:  # one part must not end the others
        import traceback

        traceback.print_exc()
        found = (
            first_line(error)
            if isinstance(error, UserError)
            else f"{type(error).__name__}: {first_line(error)}"
        )
    sys.stdout.flush()
    answer.send(found)
    answer.close()
    os._exit(0)  # nothing of a GPU that may be broken is tidied up


def end_group(process: Any) -> None:
    """End a part's process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.join()


if __name__ == "__main__":
    run_script(main)
