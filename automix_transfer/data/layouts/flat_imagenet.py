"""ImageNet's validation images in one folder, as Kaggle and image-net.org give them, with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from automix_transfer.data.detection.annotation_checks import as_whole
from automix_transfer.data.images import is_image_name
from automix_transfer.data.layouts.matlab import read_matlab
from automix_transfer.data.layouts.walking import is_hidden
from automix_transfer.data.listing import Listing, Paths, read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError
from automix_transfer.text_files import plain_name

KAGGLE = "LOC_{split}_solution.csv"
DEVKIT, SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
#: Where they lie in a folder, which is that of the images or one above it.
_DEVKIT_PLACES = (".", "data", "devkit/data", "ILSVRC2012_devkit_t12/data")
_HIGHEST = 5  # Kaggle's table lies four folders above ILSVRC/Data/CLS-LOC/val


def flat_images(folder: Path, classes: Sequence[str], layout: str, notes: Sequence[str]) -> Listing:
    """The images of ``folder``, sorted by class and name, as if they lay in class folders.

    Args:
        classes: wnids in label order, the names of the training split's folders.

    Raises:
        UserError: no list of labels is there, or it lacks images, or names other classes.
    """
    names = sorted(e.name for e in os.scandir(folder) if is_image_name(e.name) and not is_hidden(e.name))
    table, wnids = _labels(folder, names, layout)
    label_of = {plain_name(name): label for label, name in enumerate(classes)}
    problems = Problems(str(table))
    problems.add_many(table, "images have no label there", [name for name in names if name not in wnids])
    problems.add_many(
        table, "classes have no folder in the training split", sorted(set(wnids.values()) - label_of.keys())
    )
    problems.raise_if_any("give the table of these images, and a training split with every class")
    chosen = sorted(names, key=lambda name: label_of[wnids[name]])
    labels = [label_of[wnids[name]] for name in chosen]
    lacking = len(classes) - len(set(labels))
    some = (
        [f"{folder} has images of {len(classes) - lacking} of the {len(classes)} classes"] if lacking else []
    )
    said = f"{folder} has no class folders; its labels are those of {table}"
    paths = Paths(f"{folder}{os.sep}{name}" for name in chosen)
    return Listing(paths, labels, list(classes), notes=(*notes, said, *some))


def _labels(folder: Path, names: Sequence[str], layout: str) -> tuple[Path, dict[str, str]]:
    """(the table that was found, {image: wnid} of ``names``)."""
    for place in [folder.absolute(), *folder.absolute().parents][: _HIGHEST + 1]:
        for split in (folder.name, "val"):
            if (table := place / KAGGLE.format(split=split)).is_file():
                return table, _of_kaggle(table, names)
        for data in _DEVKIT_PLACES:
            if (table := place / data / DEVKIT).is_file() and table.with_name(SYNSETS).is_file():
                return table, _of_devkit(table, names)
    kaggle = KAGGLE.format(split="val")
    looked = f"no {kaggle} (Kaggle) and no {DEVKIT} with {SYNSETS} (devkit) lie in it or above it"
    raise UserError(
        f"{folder} holds {len(names):,} images but no class folders, and {looked}; put one of them there, or "
        f"sort the images into folders: {layout}"
    )


def _of_kaggle(table: Path, names: Sequence[str]) -> dict[str, str]:
    """Lines ``ILSVRC2012_val_00000001,n01751748 111 108 441 193``: a class and a box, maybe several times."""
    problems = Problems(str(table))
    rows = read_lines(table, 2, problems, separator=",", exact=False, form="<ImageId>,<wnid> <box>")
    of_stem = {stem: text.split(maxsplit=1)[0] for _, (stem, text) in rows if text.strip()}
    problems.raise_if_any("restore it from Kaggle's archive")
    return {name: of_stem[stem] for name, stem in _stems(names) if stem in of_stem}


def _of_devkit(table: Path, names: Sequence[str]) -> dict[str, str]:
    """Line n holds the devkit's number of the class of image n; ``meta.mat`` says which wnid that is."""
    remedy = "restore it from ILSVRC2012_devkit_t12.tar.gz"
    problems, meta = Problems(str(table)), table.with_name(SYNSETS)
    found: object = read_matlab(meta, "synsets", remedy)
    rows = found if isinstance(found, list) else []
    of_number = {
        as_whole(row.get("ILSVRC2012_ID")): str(row.get("WNID")) for row in rows if isinstance(row, dict)
    }
    numbers = dict(read_lines(table, 1, problems, form="<class>"))
    wnids = {}
    for name, stem in _stems(names):
        digits = stem.rpartition("_")[2]
        line = int(digits) if digits.isdecimal() and len(digits) < 10 else 0
        if line in numbers:
            text = numbers[line][0]
            wnid = of_number.get(int(text)) if text.isdecimal() and len(text) < 10 else None
            if wnid is None:
                problems.add(table, f"'{text[:20]}' is no class of {meta}", line)
            else:
                wnids[name] = wnid
    problems.raise_if_any(remedy)
    return wnids


def _stems(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((name, name.rpartition(".")[0]) for name in names)
