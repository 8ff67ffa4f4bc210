"""Pack a data set's images into tar shards, which a network file system reads faster than single files.

``automix-transfer data pack --dataset imagefolder --root /data/imagenet --output
/data/imagenet-shards``. Files are copied byte for byte in the data set's own order, so a run on the shards
gives the same bits as a run on the folder. What was packed before stays: the same command goes on after an
interruption. Any reader of WebDataset's layout reads the result.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from automix_transfer import signals
from automix_transfer.command_line import command_parser
from automix_transfer.data.listing import Listing
from automix_transfer.data.registry import LAYOUTS, load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards.index import CLASSES
from automix_transfer.data.shards.tar import BLOCK
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import atomic_write, write_text
from automix_transfer.owner import owned
from automix_transfer.progress import Progress

MEGABYTES = 512


def pack(listing: Listing, output: Path, split: str, megabytes: int = MEGABYTES) -> list[Path]:
    """Write ``output/classes.txt`` and ``output/SPLIT-000000.tar``, ..., each of at most about ``megabytes``.

    Raises:
        UserError: images that are no files of their own, class names that are not UTF-8, other classes than
            those packed before, a full disk, an image that is gone.
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
    write_text(known, names)
    sizes = [_size(path) for path in listing.paths]
    starts = list(_starts(sizes, megabytes * 1_000_000))
    shards = [output / f"{split}-{number:06d}.tar" for number in range(len(starts))]
    progress = Progress(f"packing {split}")
    for shard, start, end in zip(shards, starts, [*starts[1:], len(sizes)], strict=True):
        wanted = _tar_bytes(sizes[start:end], listing.labels[start:end])
        if not shard.is_file() or shard.stat().st_size != wanted:
            atomic_write(shard, partial(_write, listing=listing, start=start, end=end))
        progress(end, len(sizes))
    odd = sorted(set(output.glob(f"{split}-*.tar")) - set(shards))
    if odd:
        raise UserError(
            f"{output} also holds {len(odd)} shards of another packing, e.g. {odd[0].name}; remove them"
        )
    return shards


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


def _write(file: IO[bytes], listing: Listing, start: int, end: int) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(start, end):
            path = listing.paths[index]
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UserError(f"image {path} could not be read ({error.strerror}); restore it") from error
            key = f"{index:08d}"  # no dots and no folders: a key ends at its first dot
            files = {f"{key}{path.suffix.lower()}": content, f"{key}.cls": b"%d" % listing.labels[index]}
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _tar_bytes(sizes: Sequence[int], labels: Sequence[int]) -> int:
    """Bytes of the tar file of `_write`.

    Those are a header and whole blocks for each member, and two zero blocks, filled up to a record.
    """
    contents = [*sizes, *(len(str(label)) for label in labels)]
    blocks = sum(1 + -(-size // BLOCK) for size in contents) + 2
    return -(-blocks * BLOCK // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


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
    options = parser.parse_args(arguments)
    if options.megabytes < 1:
        raise UserError(f"--megabytes {options.megabytes} must be at least 1")
    with signals.kept(f"interrupted; the shards in {options.output} are kept: the same command goes on"):
        return _pack_splits(options)


def _pack_splits(options: argparse.Namespace) -> int:
    for split in dict.fromkeys(options.split or LAYOUTS[options.dataset].splits):
        listing = load_listing(DataConfig(dataset=options.dataset, root=options.root), split)
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


if __name__ == "__main__":
    run_script(main)
