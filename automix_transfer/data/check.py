"""Look at a data set before it is trained on: its lists, images, boxes, and images that two splits share.

``automix-transfer data check --dataset cub --root /data/CUB_200_2011`` prints what there is, or all
that is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from automix_transfer.command_line import command_parser
from automix_transfer.console import show
from automix_transfer.data.cache import cache_file
from automix_transfer.data.images import FLAG_NOTE, ImageFacts, cut_bottom, decode_image
from automix_transfer.data.listing import Listing
from automix_transfer.data.problems import ListError, Problems, bounded
from automix_transfer.data.registry import LAYOUTS, load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import MachineError, UserError, run_old_module
from automix_transfer.io import write_json, write_text
from automix_transfer.owner import owned_file
from automix_transfer.progress import Progress, to_stderr

HEAD = "# automix-transfer data check: "  #: of the first line of a list of problems
CHUNK = 64  # images a task: a future for each of a million images would need a gigabyte


@dataclass
class SplitReport:
    """What one split holds, and what is wrong with it."""

    name: str
    listing: Listing
    # of each image; None where it is bad; empty where none was read
    facts: list[ImageFacts | None] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)  # index -> sentence
    bad_boxes: list[str] = field(default_factory=list)  # sentences on boxes that lie wholly outside
    # sentences on boxes that reach outside, as a few of the released CUB do
    cut_boxes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        vectors = self.listing.vectors
        counts = Counter(self.listing.labels if vectors is None else np.nonzero(vectors == 1)[1].tolist())
        sizes = sorted(counts.values())
        lines = [
            f"{self.name}: {len(self.listing):,} images of {len(counts):,} classes "
            f"(a class: min {sizes[0]:,}, median {statistics.median(sizes):g}, max {sizes[-1]:,})"
        ]
        if vectors is not None:
            labels, unknown = sum(sizes) / len(vectors), int((vectors < 0).sum())
            lines.append(f"  labels: {labels:.2f} an image, {unknown:,} unknown (difficult objects alone)")
        good = [fact for fact in self.facts if fact]
        if good:
            widths, heights = sorted(f.width for f in good), sorted(f.height for f in good)
            middle = len(good) // 2
            lines.append(
                f"  sizes: {widths[0]} to {widths[-1]} wide, {heights[0]} to {heights[-1]} high, "
                f"medians {widths[middle]} x {heights[middle]}"
            )
            modes = Counter(f.mode for f in good).most_common()
            lines.append("  modes: " + ", ".join(f"{mode} {count:,}" for mode, count in modes))
            turned = sum(f.turned for f in good)
            lines += [f"  with a camera's rotation flag: {turned:,} ({FLAG_NOTE})"] if turned else []
        if self.listing.boxes is not None:
            lines.append(f"  boxes: {sum(map(len, self.listing.boxes)):,}")
        if self.listing.crop_bottom:
            rows = f"the lowest {self.listing.crop_bottom} rows of each image"
            lines.append(f"  {rows} are cut off (data.crop_banner)")
        if self.cut_boxes:
            count = f"{len(self.cut_boxes):,} boxes reach outside their image"
            lines.append(f"  note: {count}, e.g. {self.cut_boxes[0]}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.listing.notes)])


@dataclass
class Report:
    """What a data set holds. ``str`` is the table for people; ``problems`` is empty for a sound one."""

    dataset: str
    root: str
    splits: list[SplitReport]
    shared: list[str] = field(default_factory=list)  # sentences on images that two splits share

    @property
    def problems(self) -> list[str]:
        """Every bad image and box, one sentence each."""
        return [sentence for split in self.splits for sentence in [*split.bad.values(), *split.bad_boxes]]

    def __str__(self) -> str:
        bad = sum(len(split.bad) for split in self.splits)
        read = any(split.facts for split in self.splits)
        verdict = "images not read" if not read else f"{bad:,} bad images" if bad else "every image decodes"
        notes = (f"note: {text}" for text in self.shared)
        return "\n".join([f"{self.dataset} at {self.root}: {verdict}", *map(str, self.splits), *notes])


def check_root(config: DataConfig, splits: Sequence[str] = (), read: bool = True, workers: int = 0) -> Report:
    """Check the lists, then decode every image of ``splits`` (default: the training and validation split).

    Raises:
        UserError: the layout or the lists are wrong; bad images and boxes are in the report instead.
    """
    reports = []
    for name in dict.fromkeys(splits or (config.train_split, config.val_split)):
        split = SplitReport(name, load_listing(config, name, vectors=True))
        if read:
            read_all(split, f"{config.dataset} {name}", workers)
        reports.append(split)
    return Report(config.dataset, config.root, reports, list(_shared(reports)))


def check_data(config: DataConfig, workers: int = 0) -> Report:
    """`check_root` of both splits, where bad images raise one error or are reported (``on_bad_image``).

    Raises:
        UserError: as above; and boxes that lie outside their image, whatever ``on_bad_image`` says.
    """
    report = check_root(config, workers=workers)
    boxes = [sentence for split in report.splits for sentence in split.bad_boxes]
    fatal = boxes if config.on_bad_image == "skip" else report.problems
    Problems(f"{config.dataset} at {config.root}", fatal).raise_if_any(
        "", more="; automix-transfer data check --output FILE lists all"
    )
    for split in report.splits:
        _warn(split.bad, split.name, len(split.listing))
    return report


def drop_bad_images(listing: Listing, what: str, workers: int = 0) -> Listing:
    """The listing without the images that do not decode; they are printed to stderr.

    The verdict is kept in the user's cache folder under a digest of every file's path, size and time, so the
    next start, a resumed run and the other ranks need not read everything again; the same files give the same
    listing either way.
    """
    memory = _verdict_file(listing)
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))["bad"]
        bad = {int(index): str(text) for index, text in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        split = SplitReport(what, listing)
        read_all(split, what, workers)
        bad = split.bad
        with suppress(UserError):  # a cache that cannot be written costs time only
            write_json(memory, {"what": what, "images": len(listing), "bad": bad})
    _warn(bad, what, len(listing))
    if not bad:
        return listing
    good = [index for index in range(len(listing)) if index not in bad]
    if not good:
        raise UserError(f"{what}: none of its {len(listing):,} images can be read; {bad[min(bad)]}")
    return listing.select(good)


def read_all(split: SplitReport, what: str, workers: int = 0) -> None:
    """Decode every image of ``split`` in threads, with progress on stderr.

    Pillow's decoders run outside the interpreter lock.
    """
    listing = split.listing

    def read(start: int) -> list[tuple[ImageFacts | None, str]]:
        return [_read_one(listing, index) for index in range(start, min(start + CHUNK, len(listing)))]

    progress = Progress(what)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for results in pool.map(read, range(0, len(listing), CHUNK)):
            for facts, complaint in results:
                if facts is None:
                    split.bad[len(split.facts)] = complaint
                split.facts.append(facts)
            progress(len(split.facts), len(listing), f"{len(split.bad):,} bad")
    _judge_boxes(split)


def _read_one(listing: Listing, index: int) -> tuple[ImageFacts | None, str]:
    path = listing.paths[index]
    if listing.pixels is not None:  # their reader has checked sizes and digits
        pixels = listing.pixels[index]
        height, width = pixels.shape[:2]
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        return ImageFacts(width, height, "RGB", False, digest), ""
    try:
        image, facts = decode_image(path, listing.packed.read(index) if listing.packed else None)
        cut_bottom(image, listing.crop_bottom, path)
        return facts, ""
    except MachineError:
        raise
    except UserError as error:
        return None, str(error)


def _judge_boxes(split: SplitReport) -> None:
    for path, boxes, fact in zip(split.listing.paths, split.listing.boxes or (), split.facts, strict=False):
        if fact is None:
            continue
        for x0, y0, x1, y1 in boxes:
            place = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) of image {path}"
            text = f"{place}, which is {fact.width} x {fact.height}"
            if x0 >= fact.width or y0 >= fact.height or x1 < 0 or y1 < 0:
                split.bad_boxes.append(f"{text}, lies outside it; correct the box file")
            # half a pixel is rounding
            elif x0 < 0 or y0 < 0 or x1 > fact.width + 0.5 or y1 > fact.height + 0.5:
                split.cut_boxes.append(text)


def _shared(splits: Sequence[SplitReport]) -> Iterator[str]:
    for a, b in combinations(splits, 2):
        digests = {fact.digest for fact in a.facts if fact}
        facts = zip(b.listing.paths, b.facts, strict=False)  # no facts where no image was read
        same = [path for path, fact in facts if fact and fact.digest in digests]
        if same:
            yield (
                f"{len(same):,} images of {b.name} are byte for byte in {a.name} too, e.g. {same[0]}: "
                "figures measured on them are not figures on unseen images"
            )


def _verdict_file(listing: Listing) -> Path:
    about, packed = f"1 {listing.crop_bottom}", listing.packed
    if packed is not None:
        about += f" {hashlib.sha256(packed.spans.tobytes()).hexdigest()}"
    return cache_file("bad_images_*.json", about, listing.files)


def _is_ours(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(HEAD)) == HEAD.encode()


def _warn(bad: dict[int, str], what: str, total: int) -> None:
    if bad:
        head = f"{what}: {len(bad):,} of {total:,} images are bad and left out (data.on_bad_image=skip)"
        to_stderr("\n  ".join([head, *bounded([bad[index] for index in sorted(bad)])]))


LAYOUT_LINES = "\n".join(f"  {name:<17} {layout.files}" for name, layout in LAYOUTS.items())
EPILOG = f"""layouts:
{LAYOUT_LINES}

examples:
  automix-transfer data check --dataset cub --root /data/CUB_200_2011
  automix-transfer data check --dataset imagefolder --root /data/imagenet --split val
  automix-transfer data check --dataset aircraft --root /data/fgvc-aircraft-2013b --lists-only

Every image is decoded as in training, about 100 to 1,000 images a second and core. Exit code 0: sound.
2: something is wrong; the first 20 problems of each kind are printed, and --output FILE takes all. Restore
single bad images, or set data.on_bad_image=skip."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see ``--help``."""
    what = "Check a data set's layout, lists, images and boxes, and say what it holds."
    parser = command_parser("data check", what, EPILOG)
    add = parser.add_argument
    add("--dataset", required=True, choices=list(LAYOUTS), help="how ROOT is laid out")
    add("--root", required=True, help="the folder that holds the data set")
    checked = "a split to check, may be repeated (default: the usual ones)"
    add("--split", action="append", default=[], help=checked)
    for kind in ("image", "label"):
        words = f"hf: where the {kind}s are (data.{kind}_column)"
        add(f"--{kind}-column", default="", metavar="NAME", help=words)
    lists = "check folders and list files, but do not read the images"
    add("--lists-only", action="store_true", help=lists)
    banner = "aircraft: do not expect the 20-pixel banner (data.crop_banner=false)"
    add("--keep-banner", action="store_true", help=banner)
    add("--workers", type=int, default=0, help="threads (default: one a core)")
    add("--output", type=Path, metavar="FILE", help="text file that all problems are written to")
    options = parser.parse_args(arguments)
    splits = options.split or list(LAYOUTS[options.dataset].splits)
    config = DataConfig(dataset=options.dataset, root=options.root, crop_banner=not options.keep_banner)
    config.image_column, config.label_column = options.image_column, options.label_column
    if "train" not in splits:
        config.train_split = splits[0]
    try:
        report = check_root(config, splits, not options.lists_only, max(0, options.workers))
        problems, where, found = report.problems, "", f"{report}\n"
    except ListError as error:
        problems, where, found = list(error.found), "the lists of ", ""
    said = f"{len(problems):,} problem(s) in {where}{options.dataset} at {options.root}"
    if options.output:
        with owned_file(options.output, _is_ours, "list of data check"):
            write_text(options.output, "\n".join([f"{HEAD}{said}", *problems, ""]))
    show(found + "\n".join(bounded(problems)), end="\n" if problems else "")
    if not problems:
        return 0
    said += f"; all of them are in {options.output}" if options.output else ""
    print(f"error: {said}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    run_old_module("data check", main)
