"""Whether images decode, before a training of days begins: all pixels of some, the ends of others.

A file of JPEG or PNG that ends as the format says was not cut off. Where it does not, or where the format has
no such end, it is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from automix_transfer.data.cache import cache_file
from automix_transfer.data.images import read_image, require_file
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json
from automix_transfer.progress import Progress

ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n": b"\x00\x00\x00\x00IEND\xaeB`\x82"}
CHUNK = 64  # images a task


def undecodable(files: Sequence[Path], what: str, whole: bool = True, workers: int = 0) -> dict[Path, str]:
    """The images that do not decode, and what is wrong with each.

    The verdict is kept in the user's cache folder, under the path, size and times of every file: the next
    start need not look again, and a file that was repaired or damaged since is looked at again.

    Args:
        what: named on the progress lines.
        whole: decode each of them; else only those that seem to be cut off.
    """
    memory = cache_file("decoded_*.json", f"1 {whole}", files)
    with suppress(UserError, KeyError, TypeError, AttributeError):
        return {Path(file): str(text) for file, text in read_json(memory)["bad"].items()}
    bad: dict[Path, str] = {}
    progress, done = Progress(f"looking at {what}"), 0
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for chunk, found in zip(chunks, pool.map(partial(_look, whole=whole), chunks), strict=True):
            bad |= found
            done += len(chunk)
            progress(done, len(files), f"{len(bad):,} bad")
    with suppress(UserError):  # a cache that cannot be written costs time only
        write_json(memory, {"what": what, "bad": {str(file): text for file, text in bad.items()}})
    return bad


def _look(files: Sequence[Path], whole: bool) -> dict[Path, str]:
    return {file: wrong for file in files if (wrong := problem(file, whole))}


def problem(file: Path, whole: bool = True) -> str:
    """Why an image does not decode; empty for a sound one."""
    try:
        if whole or not _is_complete(file):
            read_image(file)
    except UserError as error:
        return str(error).partition(";")[0].removeprefix(f"image {file} ")
    return ""


def _is_complete(file: Path) -> bool:
    try:
        require_file(file)
        with file.open("rb") as opened:
            begin = opened.read(8)
            opened.seek(-12, os.SEEK_END)
            end = opened.read()
    except OSError:  # missing, or too short to be an image
        return False
    return any(begin.startswith(head) and end.endswith(tail) for head, tail in ENDS.items())
