"""What lies in a folder of images: hidden entries and links that lead in circles are passed over and counted.

Also where a data set lies, when ``data.root`` is a folder or two above it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from automix_transfer.data.images import is_image_name
from automix_transfer.errors import UserError, few

#: What file managers, notebooks and network storage leave behind; so is every name that begins with a dot.
LEFT_BEHIND = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
    + ("lost+found", "system volume information")
)
#: Folders of this many others are class folders, below which no data set is looked for.
MANY = 32
#: Of labels, not of images.
_NO_DATA = frozenset(("annotations", "imagesets", "devkit", "labels"))

Identity = tuple[int, int]  # device and number of a folder, whatever path leads to it


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder is no part of the data set."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


@dataclass
class Aside:
    """What was passed over in a folder of images."""

    others: int = 0  # visible files that are no images by their names
    hidden: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)  # links to a folder that was met already
    loose: int = 0  # images beside the class folders
    merged: list[str] = field(default_factory=list)  # class folders whose images lie in several below them

    def notes(self, folder: Path) -> tuple[str, ...]:
        """One sentence for each kind, with its count."""
        hidden, circles = len(self.hidden), len(self.circles)
        what = {
            f"{self.others} files in {folder} are no images by their names and were left aside": self.others,
            f"{hidden} hidden entries in {folder} were passed over ({_names(self.hidden)})": hidden,
            f"{self.loose} images in {folder} lie beside the class folders, have no class and were left "
            "aside": self.loose,
            f"{len(self.merged)} class folders in {folder} have images in several folders below them, which "
            f"are one class, as torchvision's ImageFolder reads them ({_names(self.merged)})": self.merged,
            f"{circles} links in {folder} lead to folders that are read already, and were passed over "
            f"({few(os.path.relpath(path, folder) for path in self.circles)})": circles,
        }
        return tuple(sentence for sentence, count in what.items() if count)


def _names(paths: Iterable[str]) -> str:
    return few(dict.fromkeys(os.path.basename(path) for path in paths))


def identity(path: str | Path) -> Identity:
    """Which folder ``path`` is, the same for every link to it."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def above(folder: Path) -> set[Identity]:
    """``folder`` and all that it lies in, by its path and by where links lead."""
    places = (folder.absolute(), Path(os.path.realpath(folder)))
    return {identity(place) for start in places for place in (start, *start.parents)}


def class_folders(folder: Path, aside: Aside) -> list[str]:
    """The names of the folders in ``folder``, unsorted.

    Links that lead to it, upwards, or to another of its folders are passed over.
    """
    names, links = [], list[os.DirEntry]()
    for entry in os.scandir(folder):
        if not _is_folder(entry):
            aside.loose += is_image_name(entry.name)
            continue
        if is_hidden(entry.name):
            aside.hidden.append(entry.path)
        elif entry.is_symlink():
            links.append(entry)
        else:
            names.append(entry.name)
    met = above(folder) | {identity(folder / name) for name in names} if links else set()
    for link in sorted(links, key=lambda entry: entry.name):
        if (which := identity(link.path)) in met:
            aside.circles.append(link.path)
        else:
            met.add(which)
            names.append(link.name)
    return names


def images_below(folder: Path, aside: Aside) -> list[str]:
    """The image files in and below ``folder`` in torchvision's order.

    Every folder is met once, real folders before links to them, so a link that leads upwards ends; one to
    another class folder is passed over.
    """
    met: set[Identity] = above(folder) - {identity(folder)}
    found: list[tuple[str, list[str]]] = []
    todo, links, beside = [str(folder)], list[str](), set[Identity]()
    while todo or links:
        if not todo and not beside:
            beside = {identity(other) for other in subfolders(folder.parent)}
            met |= beside
        place = todo.pop() if todo else links.pop()
        if (which := identity(place)) in met:
            aside.circles.append(place)
            continue
        met.add(which)
        images = []
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name
                if _is_folder(entry):
                    kind = aside.hidden if is_hidden(name) else links if entry.is_symlink() else todo
                    kind.append(entry.path)
                elif is_image_name(name):
                    images.append(name)
                elif is_hidden(name):
                    aside.hidden.append(entry.path)
                else:
                    aside.others += 1
        found.append((place, images))
        links.sort(reverse=True)
    if sum(bool(names) for _, names in found) > 1:
        aside.merged.append(str(folder))
    return [f"{place}{os.sep}{name}" for place, names in sorted(found) for name in sorted(names)]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to what is not ours to see
        return False


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in ``folder``, sorted."""
    try:
        return sorted(Path(e.path) for e in os.scandir(folder) if _is_folder(e) and not is_hidden(e.name))
    except OSError:  # not ours to enter
        return []


def find_below(root: Path, holds: Callable[[Path], bool], depth: int = 4) -> list[Path]:
    """The folders that ``holds`` is true of, on the highest level that has any: ``root``, its folders, ..."""
    level = [root]
    for _ in range(depth + 1):
        if found := [folder for folder in level if holds(folder)]:
            return found
        inside = [subfolders(folder) for folder in level]
        level = [f for some in inside if len(some) <= MANY for f in some if f.name.lower() not in _NO_DATA]
    return []


def find_root(
    root: Path, holds: Callable[[Path], bool], usual: Sequence[str] = (), inside: Sequence[str] = ()
) -> tuple[Path, list[str]]:
    """(the folder of a data set, what there is to say): ``root``, a ``usual`` folder in it, one below, or
    that of which ``root`` is a part with a name of ``inside``.

    ``root`` itself where there is none.

    Raises:
        UserError: several folders below ``root`` hold such a data set.
    """
    for place in (root, *(root / name for name in usual)):
        if holds(place):
            return place, []
    found = find_below(root, holds)
    if len(found) > 1:
        raise UserError(
            f"{root} holds {len(found)} data sets ({few(str(f.relative_to(root)) for f in found)}); set "
            f"data.root={found[0]}, or to another of them"
        )
    parent = root.absolute().parent
    if not found and root.name in inside and holds(parent):
        return parent, [f"data.root={root} lies in the data set, which is read from {parent}"]
    if not found:
        return root, []
    return found[0], [f"the data set was found below data.root={root}, in {found[0]}"]
