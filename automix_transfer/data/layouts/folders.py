"""One folder a split and one folder a class: ImageNet, any ImageFolder, CIFAR as folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.data.images import is_image_name
from automix_transfer.data.layouts.class_order import by_plain_name, in_order, order_note
from automix_transfer.data.layouts.flat_imagenet import flat_images
from automix_transfer.data.layouts.walking import Aside, class_folders, find_root, images_below, subfolders
from automix_transfer.data.listing import Listing, Paths
from automix_transfer.data.problems import Problems
from automix_transfer.errors import UserError, few
from automix_transfer.text_files import plain_name

FOLDER_LAYOUT = "ROOT/SPLIT/CLASS/image.jpg, e.g. /data/imagenet/train/n01440764/n01440764_10026.JPEG"
#: files of data sets that are not read as they are, and what to do with them
FOREIGN = {
    ".tar": "unpack each into a folder of its name, or see data.dataset=shards",
    ".zip": "unpack them",
    ".arrow": "see data.dataset=hf",
    ".parquet": "write them by save_to_disk of Hugging Face's datasets, for data.dataset=hf",
    **dict.fromkeys((".tfrecord", ".mdb", ".h5"), "write class folders of them"),
}
#: What else a split is called, in the order in which it is looked for; capitals do not matter.
OTHER_NAMES = {
    "train": ("train", "training", "train_mini"),
    "val": ("val", "valid", "validation", "test", "testing"),
}


def imagefolder(
    root: Path, split: str, reference: str = "train", order: str = "auto", known: Sequence[str] = ()
) -> Listing:
    """One folder a split, one folder a class; images come in torchvision's order.

    Classes are the folder names of the ``reference`` split, so a split that lacks a class keeps the
    numbering. A split of ImageNet without class folders is read with the labels of Kaggle or of the devkit.

    Args:
        order, known: of the classes, see `in_order`.
    """
    require_folder(root, FOLDER_LAYOUT)
    root, notes = find_root(root, lambda folder: has_splits(folder, reference, split))
    folder, said = split_folder(root, split)
    notes += said
    aside, unread = Aside(), Aside()
    base, of_classes = folder, split_folder(root, reference)[0] if is_split(root, reference) else folder
    of_classes = _nested(of_classes)
    names = in_order(class_names(of_classes, unread, FOLDER_LAYOUT), order, known)
    places = by_plain_name(names, of_classes)
    folder = of_classes if base == of_classes else _nested(base, places)
    if folder != base:
        notes.append(f"the class folders of {base} were found below it, in {folder}")
    if folder != of_classes and not class_folders(folder, unread):
        return flat_images(folder, names, FOLDER_LAYOUT, (*notes, *order_note(names)))
    here = by_plain_name(class_names(folder, aside, FOLDER_LAYOUT), folder)
    if unknown := sorted(here.keys() - places.keys()):
        raise UserError(
            f"{folder} has {len(unknown)} class folder(s) that {of_classes} has not, e.g. '{unknown[0]}'; "
            "both splits must use the same class names"
        )
    paths: list[str] = []
    labels: list[int] = []
    problems = Problems(str(folder))
    for label, name in enumerate(map(plain_name, names)):
        if name not in here:
            continue
        others = aside.others
        images = images_below(folder / here[name], aside)
        if not images:
            other = aside.others - others
            problems.add(folder / here[name], f"the class folder holds no image, and {other} other files")
        paths += images
        labels += [label] * len(images)
    problems.raise_if_any("fill or remove the folder")
    notes += aside.notes(folder)
    if len(here) < len(names):
        notes.append(f"{folder} has images of {len(here)} of the {len(names)} classes")
    return Listing(Paths(paths), labels, names, notes=(*notes, *order_note(names)))


def _find_split(root: Path, split: str) -> Path | None:
    """``root/split``, or a folder of another name for it, which must have class folders."""
    if split and (root / split).is_dir():
        return root / split
    if split not in OTHER_NAMES or not root.is_dir():
        return None
    present = {folder.name.lower(): folder for folder in subfolders(root)}
    names = (name for name in OTHER_NAMES[split] if name in present)
    return next((present[name] for name in names if subfolders(present[name])), None)


def is_split(root: Path, split: str) -> bool:
    """Whether ``root`` has a folder for ``split``."""
    return _find_split(root, split) is not None


def has_splits(folder: Path, *splits: str) -> bool:
    """Whether ``folder`` holds one of ``splits``."""
    return any(is_split(folder, split) for split in splits)


def split_folder(root: Path, split: str) -> tuple[Path, list[str]]:
    """The folder of ``split``, and what there is to say of its name."""
    folder = _find_split(root, split)
    if folder is None:
        has = ", ".join(f.name for f in subfolders(root)[:8])
        higher = root.absolute().parent
        remedy = f"name another with data.train_split or data.val_split{foreign_files(root)}"
        if any(map(_holds_image, subfolders(root)[:8])):
            own = f"data.root={higher} data.train_split={root.absolute().name}"
            remedy = f"if these are classes, it is a split itself: set {own}"
        if is_split(higher, split):
            remedy = f"{higher} has one: set data.root={higher}"
        raise UserError(
            f"data root {root} has no split folder '{split}' (it has: {has}); expected {FOLDER_LAYOUT}; "
            f"{remedy}"
        )
    other = folder.name != split
    return folder, [f"there is no '{split}' in {root}; {folder} is read for it"] if other else []


def _nested(folder: Path, known: Sequence[str] | dict[str, str] = ()) -> Path:
    """``folder``, or what an archive that was unpacked into it put between it and its class folders.

    Such a folder is the only one, and is called as the split, or holds several folders and no image.
    """
    for _ in range(2):
        inside = subfolders(folder)
        if len(inside) != 1 or plain_name(inside[0].name) in known:
            break
        only, below = inside[0], subfolders(inside[0])
        same = only.name.lower() == folder.name.lower()
        if not same and (len(below) < 2 or _holds_image(only) or _holds_image(folder)):
            break
        folder = only
    return folder


def _holds_image(folder: Path) -> bool:
    return any(is_image_name(entry.name) for entry in os.scandir(folder))


def require_folder(root: Path, layout: str) -> None:
    """Raise a `UserError` with the expected layout unless ``root`` is a folder with something in it."""
    try:
        empty = next(os.scandir(root), None) is None
    except FileNotFoundError:
        problem = "does not exist"
    except NotADirectoryError:
        problem = "is a file, not a folder"
    except PermissionError as error:
        problem = f"cannot be listed ({error.strerror})"
    else:
        if not empty:
            return
        problem = "is empty"
    raise UserError(f"data root {root} {problem}; set data.root to a folder laid out as {layout}")


def require_split(name: str, split: str, allowed: Sequence[str], note: str = "") -> None:
    """Raise a `UserError` unless data set ``name`` has ``split``."""
    if split not in allowed:
        raise UserError(f"{name} has no split '{split}'; choose one of {', '.join(allowed)}{note}")


def class_names(folder: Path, aside: Aside, layout: str) -> list[str]:
    """The names of the class folders in ``folder``, unsorted."""
    names = class_folders(folder, aside)
    if not names:
        loose = sum(is_image_name(entry.name) for entry in os.scandir(folder))
        circles = f" but links to itself ({few(aside.circles)})" if aside.circles else ""
        holds = f"{folder} holds {loose:,} images but no class folders{circles}{foreign_files(folder)}"
        raise UserError(f"{holds}; expected {layout}")
    return names


def foreign_files(folder: Path) -> str:
    """The files of `FOREIGN` in ``folder`` or its ``data``, as the rest of a sentence; empty if there are
    none."""
    names = [entry.name.lower() for place in (folder, folder / "data") for entry in _entries(place)]
    counts = {kind: sum(kind in name for name in names) for kind in FOREIGN}
    found = next((kind for kind, count in counts.items() if count), None)
    return f"; it holds {counts[found]:,} {found} files: {FOREIGN[found]}" if found else ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []
