"""Pack a data set's images into tar shards, which a network file system reads faster than single files.

``automix-transfer data pack --dataset imagefolder --root /data/imagenet --output
/data/imagenet-shards``. Files that decode are copied byte for byte in the data set's own order, so a run on
the shards gives the same bits as a run on the folder. A shard that was packed from the same files with the
same labels stays: the same command goes on after an interruption. Any reader of WebDataset's layout reads the
result.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

from automix_transfer import signals
from automix_transfer.command_line import command_parser
from automix_transfer.data.cache import mark
from automix_transfer.data.images import read_image, require_file
from automix_transfer.data.layouts.class_order import ORDERS
from automix_transfer.data.listing import Listing
from automix_transfer.data.problems import ListError, Problems
from automix_transfer.data.registry import LAYOUTS, load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards.index import CLASSES
from automix_transfer.data.split_parts import sliced
from automix_transfer.errors import UserError
from automix_transfer.host.writable import existing
from automix_transfer.io import atomic_write, read_json, write_json, write_text
from automix_transfer.owner import owned, refuse_foreign, refuse_top_folder
from automix_transfer.progress import Progress, to_stderr

MEGABYTES = 512
MARKS = "{split}.packed.json"  # beside the shards: what each was packed from
AT_ONCE = 64  # images that are decoded in threads


def pack(listing: Listing, output: Path, split: str, megabytes: int = MEGABYTES) -> list[Path]:
    """Write ``output/classes.txt`` and ``output/SPLIT-000000.tar``, ..., each of at most about ``megabytes``.

    Raises:
        UserError: images that are no files of their own, class names that are not UTF-8, other classes than
            those packed before, somebody else's shards, a disk without room, images that are gone or do not
            decode.
    """
    if listing.pixels is not None or listing.packed is not None:
        raise UserError("its images are packed already, in a few files; use the data set as it is")
    if listing.crop_bottom:
        raise UserError(
            "its images have a banner that is cut off when they are read, which shards cannot say; use the "
            "data set as it is"
        )
    names = "".join(f"{' '.join(name.split())}\n" for name in listing.classes)
    odd_name = next((name for name in listing.classes if not _is_utf8(name)), None)
    if odd_name is not None:
        raise UserError(
            f"the name of class {odd_name!a} is not UTF-8, which {CLASSES} is written in; rename its folder"
        )
    known = output / CLASSES
    # other bytes are other names, too
    if known.is_file() and known.read_text(encoding="utf-8", errors="surrogateescape") != names:
        raise UserError(f"{known} lists other classes than this split has; choose another --output")
    sizes = [_size(path) for path in listing.paths]
    starts = list(_starts(sizes, megabytes * 1_000_000))
    shards = [output / f"{split}-{number:06d}.tar" for number in range(len(starts))]
    marks = output / MARKS.format(split=split)
    if not marks.exists():
        for shard in shards:
            refuse_foreign(shard, lambda _: False, f"shard of ours, for there is no {marks.name} beside it")
    _refuse_small_disk(output, sum(sizes) - sum(shard.stat().st_size for shard in shards if shard.is_file()))
    write_text(known, names)
    done = _read_marks(marks)
    write_json(marks, done)
    progress, bad = Progress(f"packing {split}"), list[str]()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for shard, start, end in zip(shards, starts, [*starts[1:], len(sizes)], strict=True):
            if not shard.is_file() or done.get(shard.name) != _mark(listing, start, end, shard):
                write = partial(_write, listing=listing, start=start, end=end, pool=pool)
                try:
                    atomic_write(shard, write)
                except ListError as error:
                    bad += error.found
                else:
                    done[shard.name] = _mark(listing, start, end, shard)
                    write_json(marks, done)
            progress(end, len(sizes))
    Problems(f"images of split {split}", bad).raise_if_any("restore or remove them, and pack again")
    odd = sorted(set(output.glob(f"{split}-*.tar")) - set(shards))
    if odd:
        raise UserError(
            f"{output} also holds {len(odd)} shards of another packing, e.g. {odd[0].name}; remove them"
        )
    return shards


def _refuse_small_disk(output: Path, needed: int) -> None:
    free = shutil.disk_usage(existing(output)).free
    if needed > free:
        raise UserError(
            f"{output} has {free / 1e9:.1f} GB free, but what is left to pack needs {needed / 1e9:.1f} GB; "
            "free space, or choose another --output"
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a folder's bytes that are no text are lone surrogates
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"image {path} could not be read ({error.strerror}); restore it") from error


def _starts(sizes: Sequence[int], limit: int) -> Iterator[int]:
    """Where each shard begins: as soon as another image would exceed ``limit``."""
    filled = 0
    for index, size in enumerate(sizes):
        if index == 0 or filled + size > limit:
            yield index
            filled = 0
        filled += size


def _mark(listing: Listing, start: int, end: int, shard: Path) -> str:
    """Of the images in ``shard``, their labels, and the shard itself."""
    files = [os.path.abspath(path) for path in (*listing.paths[start:end], shard)]
    return mark(f"1 {listing.labels[start:end]}", files)


def _read_marks(file: Path) -> dict[str, str]:
    """{shard: mark} of what was packed before; empty where that is not known."""
    try:
        found = read_json(file)
    except UserError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _write(file: IO[bytes], listing: Listing, start: int, end: int, pool: ThreadPoolExecutor) -> None:
    problems = Problems(f"shard of images {start:,} to {end - 1:,}")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for first in range(start, end, AT_ONCE):
            indices = range(first, min(first + AT_ONCE, end))
            contents = pool.map(_decoded, listing.paths[first : indices.stop])
            for index, content in zip(indices, contents, strict=True):
                if isinstance(content, UserError):
                    problems.found.append(str(content))
                    continue
                key = f"{index:08d}"  # no dots and no folders: a key ends at its first dot
                suffix = listing.paths[index].suffix.lower()
                files = {f"{key}{suffix}": content, f"{key}.cls": b"%d" % listing.labels[index]}
                for name, data in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    problems.raise_if_any("restore or remove them, and pack again")


def _decoded(path: Path) -> bytes | UserError:
    """The bytes of an image that decodes, or what is wrong with it."""
    try:
        require_file(path)
        content = path.read_bytes()
        read_image(path, content)
        return content
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"image {path} could not be read ({error.strerror}); restore it or remove it")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = command_parser("data pack", __doc__.split("\n\n")[0])
    add = parser.add_argument
    layouts = [name for name in LAYOUTS if name != "shards"]
    add("--dataset", required=True, choices=layouts, help="how ROOT is laid out")
    add("--root", required=True, help="the folder that holds the data set")
    output = "the folder for the shards; train with data.dataset=shards data.root=OUTPUT"
    add("--output", required=True, help=output)
    splits = "a split to pack, may be repeated (default: the usual ones)"
    add("--split", action="append", default=[], help=splits)
    add("--megabytes", type=int, default=MEGABYTES, help="of images in a shard (default %(default)s)")
    order = "of class folders that are numbers (data.class_order; default %(default)s)"
    add("--class-order", choices=ORDERS, default="auto", help=order)
    options = parser.parse_args(arguments)
    if options.megabytes < 1:
        raise UserError(f"--megabytes {options.megabytes} must be at least 1")
    refuse_top_folder(options.output, "--output")
    with signals.kept(f"interrupted; the shards in {options.output} are kept: the same command goes on"):
        return _pack_splits(options)


def _pack_splits(options: argparse.Namespace) -> int:
    for split in dict.fromkeys(options.split or LAYOUTS[options.dataset].splits):
        data = DataConfig(dataset=options.dataset, root=options.root, class_order=options.class_order)
        if sliced(split)[1]:
            raise UserError(
                f"--split {split} is a part of a split; pack all of it, and name parts of it later"
            )
        listing = load_listing(data, split)
        for note in listing.notes:
            to_stderr(f"note: {note}")
        try:
            with owned(options.output, "choose another --output"):
                shards = pack(listing, Path(options.output), split, options.megabytes)
        except UserError as error:
            raise UserError(f"{options.dataset} {split} at {options.root}: {error}") from error
        print(
            f"{split}: {len(listing):,} images of {len(listing.classes):,} classes in {len(shards):,} shards "
            f"in {options.output}"
        )
    return 0
