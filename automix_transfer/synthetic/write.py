"""The embedded data: rendered images in the layouts of real data sets, so that scripts run on them unchanged.

``automix-transfer data synthetic --out datasets`` writes imagenet/, CUB_200_2011/,
fgvc-aircraft-2013b/, VOC2007/ and coco/ in well under a minute. The same seed and scale give the same bytes.
Each data set is written beside its place and renamed when it is complete; one that is complete is left alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from automix_transfer import signals
from automix_transfer.command_line import command_parser
from automix_transfer.errors import UserError
from automix_transfer.owner import owned
from automix_transfer.progress import Progress, to_stderr
from automix_transfer.synthetic.released import LAYOUTS, Layout
from automix_transfer.synthetic.rendering import Job, Record, write_images

VERSION = 5  # raise it whenever the rendered bytes change, so that older data is rendered anew
MANIFEST = "synthetic.json"
CHUNK = 32  # images a task of a worker
EPILOG = """A data set that is already complete for this seed and scale is left as it is, so the command can
be repeated at no cost. A folder that this program did not write is never touched."""
MOST_PROCESSES = 256
POOL_FROM = 600  # fewer images than this are rendered sooner than worker processes start


def write_all(
    out: str | Path, seed: int = 0, scale: float = 1.0, processes: int | None = None, progress: bool = True
) -> list[Path]:
    """Write every embedded data set below ``out`` and return their folders.

    Args:
        seed: of all images; the same seed gives the same bytes, with any number of processes.
        scale: multiplies the numbers of images (1.0: 16 classes of 160 + 30 images in imagenet/, some 500
            images in each other set).
        processes: worker processes, one a CPU by default.
        progress: write a progress line to the standard error output.

    Raises:
        UserError: ``out`` cannot be written, or holds real data where an embedded set would go; that is never
            touched.
    """
    if not 0 < scale <= 100:
        raise UserError(
            f"--scale {scale} is out of range; give a number above 0 and up to 100 (1 is what the demo uses)"
        )
    if processes is not None and not 1 <= processes <= MOST_PROCESSES:
        raise UserError(f"--processes {processes} must be from 1 to {MOST_PROCESSES}")
    out = Path(out)
    try:
        with owned(out, wait=True):  # and then everything is there
            todo = [layout for layout in LAYOUTS if not _is_complete(out / layout.folder, seed, scale)]
            for layout in todo:
                _refuse_foreign(out / layout.folder)
            if todo:
                _write_layouts(out, todo, seed, scale, processes or os.cpu_count() or 1, progress)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} could not be written ({error.strerror or error}); free space or choose "
            "another --out. Data sets that were complete are untouched"
        ) from error
    return [out / layout.folder for layout in LAYOUTS]


def _write_layouts(
    out: Path, layouts: list[Layout], seed: int, scale: float, processes: int, progress: bool
) -> None:
    from automix_transfer.rng import derive_seed  # here, so that workers do not pay for importing torch

    jobs = {
        layout.folder: layout.jobs(
            scale, lambda *place: derive_seed(seed, f"synthetic {place[0]}", *place[1:])
        )
        for layout in layouts
    }
    total, done, start, show = sum(map(len, jobs.values())), 0, time.monotonic(), Progress("rendering")
    with _workers(min(processes, total // CHUNK + 1) if total >= POOL_FROM else 1) as run:
        for layout in layouts:
            part = out / f".{layout.folder}.part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                for folder in sorted({(part / job.file).parent for job in jobs[layout.folder]}):
                    folder.mkdir(parents=True)
                records: list[Record] = []
                for chunk in run(part, jobs[layout.folder]):
                    records += chunk
                    if progress:
                        show(done + len(records), total, layout.folder)
                layout.annotations(part, records)
                _write_manifest(part, seed, scale)
                _swap_in(part, out / layout.folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            done += len(jobs[layout.folder])
    if progress:
        size = sum(json.loads((out / layout.folder / MANIFEST).read_text())["bytes"] for layout in layouts)
        seconds = time.monotonic() - start
        to_stderr(f"{total} images, {size / 1e6:.0f} MB, written to {out} in {seconds:.0f} s")


@contextmanager
def _workers(processes: int) -> Iterator[Any]:
    """A function (folder, jobs) -> record lists in the jobs' order, run by this process or by a pool."""

    def split(jobs: list[Job]) -> list[list[Job]]:
        return [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]

    if processes == 1:
        yield lambda folder, jobs: (write_images(folder, chunk) for chunk in split(jobs))
        return
    # spawn: forking a process that holds threads (torch's, TensorBoard's) can hang the child.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, signals.leave_to_parent) as pool:

        def work(folder: Path, jobs: list[Job]) -> Iterator[Any]:
            with signals.held():  # the first call starts the processes
                return pool.map(write_images, [folder] * len(split(jobs)), split(jobs))

        yield work


# --- complete or not there
def _manifest(folder: Path, seed: int, scale: float) -> dict[str, Any]:
    """What was rendered, and what lies there now."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {
        "note": "Rendered by automix_transfer.synthetic.write; not the data set whose layout it has.",
        "version": VERSION,
        "seed": seed,
        "scale": scale,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def _write_manifest(folder: Path, seed: int, scale: float) -> None:
    manifest = _manifest(folder, seed, scale)
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _is_complete(folder: Path, seed: int, scale: float) -> bool:
    """Written by this version with this seed and scale, and all its files still there in full."""
    try:
        written = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return written == _manifest(folder, seed, scale)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UserError(
            f"{folder} exists and was not written by this program, so it was left alone; choose another --out"
        )


def _swap_in(part: Path, folder: Path) -> None:
    """Put a complete folder in its place; an older one goes first aside, then away."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see ``--help``."""
    what = "Render the embedded data: images in the native layouts of real data sets."
    parser = command_parser("data synthetic", what, EPILOG)
    add = parser.add_argument
    add("--out", type=Path, default=Path("datasets"), help="for the five data sets (default: %(default)s)")
    add("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    add("--scale", type=float, default=1.0, help="multiplies the numbers of images (default: %(default)s)")
    add("--processes", type=int, default=None, help="worker processes (default: one a CPU)")
    options = parser.parse_args(arguments)
    with signals.kept(f"interrupted; the data sets in {options.out} that are complete are kept"):
        folders = write_all(options.out, options.seed, options.scale, options.processes)
    print(*folders, sep="\n")
    return 0
