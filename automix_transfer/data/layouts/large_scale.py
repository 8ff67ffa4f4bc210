"""Large sets whose labels stand apart from their folders: iNaturalist (JSON) and Places205 (lists)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from automix_transfer.data.detection.annotation_checks import as_whole, is_plain_name, shown
from automix_transfer.data.layouts.folders import require_folder, require_split
from automix_transfer.data.layouts.walking import find_root
from automix_transfer.data.listing import Listing, read_lines
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError
from automix_transfer.io import read_json

INAT_LAYOUT = (
    "ROOT/train2018.json, ROOT/val2018.json and ROOT/train_val2018/ (2017: train2017.json, val2017.json, "
    "train_val_images/), as the archives of github.com/visipedia/inat_comp unpack side by side"
)
PLACES_LAYOUT = (
    "ROOT/trainvalsplit_places205/{train,val}_places205.csv and the folder of images that their paths begin "
    "in, as imagesPlaces205_resize.tar.gz and trainvalsplit_places205.tar.gz of places.csail.mit.edu unpack"
)
PLACES_IMAGES = ("data/vision/torralba/deeplearning/images256", "images256", ".")
_RESTORE = "restore the files from the released archives"
_UNLABELLED = " (its test images have no labels)"


def inaturalist2017(root: Path, split: str) -> Listing:
    """iNaturalist 2017, 5,089 species; splits train and val."""
    return _inaturalist(root, split, 2017)


def inaturalist2018(root: Path, split: str) -> Listing:
    """iNaturalist 2018, 8,142 species; splits train and val."""
    return _inaturalist(root, split, 2018)


def _inaturalist(root: Path, split: str, year: int) -> Listing:
    require_split(f"iNaturalist {year}", split, ("train", "val"), _UNLABELLED)
    require_folder(root, INAT_LAYOUT)
    root, notes = find_root(root, lambda folder: (folder / f"{split}{year}.json").is_file())
    file = root / f"{split}{year}.json"
    if not file.is_file():
        raise UserError(f"{root} has no {file.name}; expected {INAT_LAYOUT}")
    content = read_json(file)
    problems = Problems(str(file))
    names = _by_id(content, "categories", "name", problems)
    of_image = _by_id(content, "images", "file_name", problems)
    label_of = {category: label for label, category in enumerate(sorted(names))}
    labels: dict[int, int] = {}
    for number, item in enumerate(_rows(content, "annotations", problems)):
        image, category = (
            as_whole(item.get(key)) if isinstance(item, dict) else None for key in ("image_id", "category_id")
        )
        if image is None or image not in of_image:
            problems.add(f"annotations[{number}].image_id", f"is the id of no image: {shown(item)}")
        elif category is None or category not in label_of:
            problems.add(f"annotations[{number}].category_id", f"is the id of no category: {shown(item)}")
        elif image in labels:
            problems.add(f"annotations[{number}].image_id", f"image {image} has two labels")
        else:
            labels[image] = label_of[category]
    for image in of_image.keys() - labels.keys():
        problems.add(f"image {image}", "has no label in annotations")
    chosen = sorted(labels)
    paths = _below(root, [of_image[image] for image in chosen], problems)
    classes, numbers = [str(names[category]) for category in label_of], [labels[i] for i in chosen]
    problems.add_empty(file, classes, numbers, notes)  # parts of it are usual
    problems.raise_if_any(_RESTORE)
    return Listing(paths, numbers, classes, notes=tuple(notes))


def _by_id(content: Any, field: str, value: str, problems: Problems) -> dict[int, str]:
    """{id: text of ``value``} of the items of a list."""
    found: dict[int, str] = {}
    for number, item in enumerate(_rows(content, field, problems)):
        key, text = (as_whole(item.get("id")), item.get(value)) if isinstance(item, dict) else (None, None)
        if key is None or not isinstance(text, str):
            problems.add(f"{field}[{number}]", f"needs an integer id and a text {value}; it is {shown(item)}")
        elif key in found:
            problems.add(f"{field}[{number}].id", f"{key} is there twice")
        else:
            found[key] = text
    return found


def _rows(content: Any, field: str, problems: Problems) -> list[Any]:
    rows = content.get(field) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        problems.add(field, "is missing, empty or not a list")
        return []
    return rows


def places205(root: Path, split: str) -> Listing:
    """Places205; splits train and val. A class is called by the folder of its images, e.g. ``a/abbey``."""
    require_split("Places205", split, ("train", "val"), _UNLABELLED)
    require_folder(root, PLACES_LAYOUT)
    root, notes = find_root(root, is_places205)
    problems = Problems(f"Places205 at {root}")
    names: dict[int, str] = {}
    # both, so that both have the same classes
    rows = {name: _places_list(root, name, names, problems) for name in dict.fromkeys(("train", split))}
    missing = sorted(set(range(max(names, default=-1) + 1)) - set(names))
    if missing:
        problems.add(root, f"no image has label {missing[0]}, so it has no name")
    # a, b, ...; images themselves may be missing
    tops = {PurePosixPath(name).parts[0] for name, _ in rows[split]}
    here = max(
        (root / place for place in PLACES_IMAGES),
        key=lambda folder: sum((folder / top).is_dir() for top in tops),
    )
    paths = _below(here, [name for name, _ in rows[split]], problems)
    problems.raise_if_any(_RESTORE)
    labels, classes = [label for _, label in rows[split]], [names[label] for label in sorted(names)]
    return Listing(paths, labels, classes, notes=tuple(notes))


def is_places205(folder: Path) -> bool:
    """Whether the data set lies in ``folder``."""
    name = "train_places205.csv"
    return (folder / name).is_file() or (folder / "trainvalsplit_places205" / name).is_file()


def _places_list(root: Path, split: str, names: dict[int, str], problems: Problems) -> list[tuple[str, int]]:
    """(path, label) of each line; ``names`` gets the folder of each label's first image."""
    file = root / "trainvalsplit_places205" / f"{split}_places205.csv"
    file = file if file.is_file() else root / file.name
    rows: list[tuple[str, int]] = []
    for line, (name, label) in read_lines(file, 2, problems, form="<path> <label>"):
        if not label.isdecimal() or len(label) > 4:
            problems.add(file, f"label '{label[:20]}' is no number of a class", line)
        elif not is_plain_name(name) or "/" not in name:
            problems.add(file, f"'{shown(name)}' is no path below the folder of images", line)
        else:
            folder = str(PurePosixPath(name).parent)
            if names.setdefault(int(label), folder) != folder:
                problems.add(
                    file,
                    f"label {label} is {names[int(label)]} elsewhere, but this image lies in {folder}",
                    line,
                )
            rows.append((name, int(label)))
    return rows


def _below(root: Path, names: Iterable[str], problems: Problems) -> list[Path]:
    """``root / name`` of each, where it exists.

    Every folder is listed once, since asking for each of a million files takes minutes.
    """
    present: dict[str, set[str]] = {}
    paths: list[Path] = []
    missing: list[tuple[object, str, int | None]] = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if not is_plain_name(name):
            problems.add(root, f"'{shown(name)}' leads out of it")
            continue
        if folder not in present:
            try:
                present[folder] = set(os.listdir(root / folder))
            except OSError:
                present[folder] = set()
        if file not in present[folder]:
            missing.append((root / name, "the image is missing", None))
        paths.append(root / name)
    problems.add_missing(missing, len(paths), root)
    return paths
