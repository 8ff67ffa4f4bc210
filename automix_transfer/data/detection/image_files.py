"""The image files that annotations name, as people's tools write the names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from automix_transfer.data.detection.findings import Findings
from automix_transfer.data.images import SUFFIXES, is_image_name, read_header

TURNED = "images are turned upright by their rotation flag, as Detectron2 reads them, and so are their boxes"
#: of photographs that are converted before anybody annotates them
FOREIGN_SUFFIXES = (".heic", ".heif", ".jp2", ".jfif")
NO_SIZE = "sizes of images are missing or 0; those of the image files are taken"


class ImageFolders:
    """Looks for files in some folders, the first first, and never outside of them.

    Where a name is not there as it is written, its folders are left out from the left (``C:\\data\\a.jpg``,
    ``images/train/a.jpg``), then upper and lower case are not told apart, then endings (``a``, ``a.png`` for
    ``a.jpg``) where only one image fits. Each folder is listed once.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._listings: dict[str, dict[str, list[str]]] = {}
        self._inner: dict[Path, set[str]] = {}

    def as_written(self, name: str) -> Path | None:
        """The file of exactly this name below one of the folders."""
        if name.startswith("/") or ".." in name:
            return None
        return next((folder / name for folder in self.folders if is_file(f"{folder}/{name}")), None)

    def find(self, name: str) -> Path | None:
        """The file that ``name`` means: a path of any system, or an address; None where there is none."""
        places = [
            (f"{folder}/{above}".rstrip("/"), last)
            for above, last in _endings(name)
            for folder in self.folders
            if not above or above.partition("/")[0] in self._folders_in(folder)
        ]
        for chosen in (self._exactly, self._of_any_case, self._of_any_ending):
            for folder, last in places:
                if (found := chosen(folder, last)) is not None:
                    return Path(folder, found)
        return None

    def of_stem(self, stem: str) -> list[Path]:
        """Files directly in the folders whose name without its ending is ``stem``, in any case."""
        return [folder / name for folder in self.folders for name in self._named(str(folder), stem)]

    def _exactly(self, folder: str, last: str) -> str | None:
        return last if last in self._named(folder, _stem(last)) else None

    def _of_any_case(self, folder: str, last: str) -> str | None:
        same = [name for name in self._named(folder, _stem(last)) if _key(name) == _key(last)]
        return same[0] if len(same) == 1 else None

    def _of_any_ending(self, folder: str, last: str) -> str | None:
        names = self._named(folder, last)
        if not names and last.lower().endswith((*SUFFIXES, *FOREIGN_SUFFIXES)):
            names = self._named(folder, _stem(last))
        images = [name for name in names if is_image_name(name)]
        return images[0] if len(images) == 1 else None

    def _named(self, folder: str, stem: str) -> list[str]:
        """Names in ``folder`` with this stem, without regard to case."""
        if folder not in self._listings:
            listing = self._listings[folder] = {}
            for name in _names(folder, os.DirEntry.is_file):
                listing.setdefault(_key(_stem(name)), []).append(name)
        return self._listings[folder].get(_key(stem), [])

    def _folders_in(self, folder: Path) -> set[str]:
        if folder not in self._inner:
            self._inner[folder] = set(_names(folder, os.DirEntry.is_dir))
        return self._inner[folder]


def _names(folder: str | Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if wanted(entry))
    except (OSError, ValueError):  # no such folder
        return []


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a regular file, or a link to one."""
    try:
        return os.path.isfile(path)
    except (OSError, ValueError):  # a name that no file can have
        return False


def vanishes(size: tuple[int, int], most: int) -> bool:
    """Whether an image of (width, height) has no pixel left where its long side is scaled to ``most``, as
    Detectron2's ``ResizeShortestEdge`` does."""
    short, long = sorted(size)
    return long > 2 * short * most


def upright_size(
    path: Path, size: tuple[int, int] | None, where: object, findings: Findings
) -> tuple[int, int] | None:
    """(width, height) of an upright image from its header, which has to be ``size`` where that is given.

    None where the file cannot be read or is of another size, which is refused.
    """
    try:
        (width, height), turned = read_header(path, upright=True)  # as Detectron2 reads it
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        findings.refuse(where, f"{path} cannot be read as an image ({type(error).__name__})", "unreadable")
        return None
    if size is not None and size != (width, height):
        upright = ", once turned upright by its rotation flag" if turned else ""
        says = f"but its annotation says {size[0]}x{size[1]}"
        if turned and size == (height, width):
            says += (
                ", as its pixels are stored: save the images without the flag, or the boxes of upright ones"
            )
        findings.refuse(where, f"{path} is {width}x{height} pixels{upright}, {says}", "another size")
        return None
    if size is None:
        findings.note(where, NO_SIZE)
    if turned:
        findings.note(path, TURNED)
    return width, height


def _endings(name: str) -> Iterator[tuple[str, str]]:
    """``name`` as (folders, file name) of a relative path, then without its first folder, and so on."""
    address = urlsplit(name) if "://" in name else None
    text = unquote(address.path) if address else name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
    parts = parts[-16:]
    yield from (("/".join(parts[start:-1]), parts[-1]) for start in range(len(parts)))


def _stem(name: str) -> str:
    return name[:dot] if (dot := name.rfind(".")) > 0 else name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
