"""The image files that annotations name, as people's tools write the names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from automix_transfer.data.detection.findings import Findings
from automix_transfer.data.images import read_header

TURNED = "images are turned upright by their rotation flag, as Detectron2 reads them, and so are their boxes"
NO_SIZE = "sizes of images are missing or 0; those of the image files are taken"


class ImageFolders:
    """Looks for files in some folders, the first first, and never outside of them.

    Where a name is not there as it is written, its folders are left out from the left (``C:\\data\\a.jpg``,
    ``images/train/a.jpg``), then upper and lower case are not told apart. Listings of folders are kept.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def as_written(self, name: str) -> Path | None:
        """The file of exactly this name below one of the folders."""
        if name.startswith("/") or ".." in name:
            return None
        return next((folder / name for folder in self.folders if is_file(folder / name)), None)

    def find(self, name: str) -> Path | None:
        """The file that ``name`` means: a path of any system, or an address; None where there is none."""
        endings = list(_endings(name))
        found = (self.as_written(ending) for ending in endings)
        return next(filter(None, found), None) or next(filter(None, map(self._of_any_case, endings)), None)

    def of_stem(self, stem: str) -> list[Path]:
        """Files directly in the folders whose name without its ending is ``stem``, in any case."""
        return [
            folder / name
            for folder in self.folders
            for names in (self._listing(folder),)
            for key in (_key(stem),)
            for name in names.get(key, ())
        ]

    def _of_any_case(self, ending: str) -> Path | None:
        for folder in self.folders:
            place = folder / ending
            names = self._listing(place.parent).get(_key(PurePosixPath(ending).stem), ())
            same = [name for name in names if _key(name) == _key(place.name)]
            if len(same) == 1:
                return place.parent / same[0]
        return None

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Names in ``folder`` by their stems, without regard to case."""
        if folder not in self._listings:
            listing = self._listings[folder] = {}
            try:
                for name in sorted(os.listdir(folder)):
                    listing.setdefault(_key(PurePosixPath(name).stem), []).append(name)
            except (OSError, ValueError):  # no such folder
                pass
        return self._listings[folder]


def is_file(path: Path) -> bool:
    """Whether ``path`` is a regular file, or a link to one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


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


def _endings(name: str) -> Iterator[str]:
    """``name`` as a relative path, then without its first folder, and so on to the bare file name."""
    address = urlsplit(name) if "://" in name else None
    text = unquote(address.path) if address else name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
    yield from ("/".join(parts[start:]) for start in range(min(len(parts), 16)))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
