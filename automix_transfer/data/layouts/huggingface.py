"""Data sets of Hugging Face's ``datasets`` on disk: what ``save_to_disk`` writes, and its ImageFolder.

Nothing of the library is needed and nothing of the data set is run: a column of images is a struct of bytes
and a path in Arrow files, which are read where they lie, row by row in their order. The ImageFolder is a
folder a split with class folders, or with ``metadata.csv`` or ``metadata.jsonl``, which names each file and
its label.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.data.images import MAX_BYTES, lies_in, require_file
from automix_transfer.data.layouts.class_order import in_order, numbered, order_note
from automix_transfer.data.layouts.folders import OTHER_NAMES, imagefolder, require_folder
from automix_transfer.data.layouts.walking import find_root, subfolders
from automix_transfer.data.listing import Listing, Packed, Paths, leads_out
from automix_transfer.data.problems import Problems
from automix_transfer.data.shards.arrow import Values, arrow_batches, text_of
from automix_transfer.errors import UserError, few
from automix_transfer.io import read_json
from automix_transfer.text_files import plain_name, read_text

HF_LAYOUT = (
    "ROOT/{train,validation,test}/ with state.json, dataset_info.json and *.arrow, as save_to_disk of "
    "Hugging Face's datasets writes; or ROOT/SPLIT/ with class folders, metadata.csv or metadata.jsonl"
)
STATE, INFO, TABLES = "state.json", "dataset_info.json", ("metadata.csv", "metadata.jsonl")
#: what the columns are usually called, in the order in which they are looked for
IMAGES, LABELS = ("image", "img"), ("label", "labels", "fine_label")
_MOST_TABLE = 1 << 30  # bytes of a metadata file
_TEXT = ("string", "large_string")
_RESTORE = "restore it, or save the data set again"
_LABELLED = "give a split with labels, or another column with data.label_column"


@dataclass(frozen=True)
class Columns:
    """Those that ``data.image_column`` and ``data.label_column`` name; empty: the usual ones."""

    image: str = ""
    label: str = ""


@dataclass(frozen=True)
class _Rows:
    """The images of a split in their order, with their labels: text, or numbers of the classes ``names``,
    which are unknown where there are none."""

    where: Path
    paths: Sequence[str]
    labels: list[str] | NDArray[np.int64]
    names: list[str]
    packed: Packed | None = None


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote ``folder``: a data set, or a dictionary of its splits."""
    return _is_split(folder) or any(map(_is_split, subfolders(folder)))


def _is_split(folder: Path) -> bool:
    return (folder / STATE).is_file() and (folder / INFO).is_file()


def huggingface(
    root: Path,
    split: str,
    reference: str = "train",
    order: str = "auto",
    known: Sequence[str] = (),
    image_column: str = "",
    label_column: str = "",
) -> Listing:
    """One split, by the columns of its images and labels.

    Classes are those of a ClassLabel; of text the different ones of the ``reference`` split, and of numbers
    without names 0 to its largest.

    Args:
        order, known: of classes that are text, see `in_order`; names of a ClassLabel have their own order,
            but for that of ``known``.

    Raises:
        UserError: no such split, columns that are not there or hold something else, a damaged file, images
            without bytes, labels that are missing or no class.
    """
    require_folder(root, HF_LAYOUT)
    root, notes = find_root(root, is_saved)
    columns = Columns(image_column, label_column)
    rows = _read(root, split, reference, columns, notes)
    if rows is None:
        return imagefolder(root, split, reference, order, known)
    names = rows.names
    if not names:
        of_classes = rows
        if split != reference and _folder_of(root, reference, reference):
            of_classes = _read(root, reference, reference, columns, []) or rows
        if isinstance(of_classes.labels, list) != isinstance(rows.labels, list):
            raise UserError(
                f"the labels of {rows.where} and {of_classes.where} are of different kinds (text and "
                "numbers); give both splits the same column"
            )
        if isinstance(of_classes.labels, list):
            names = in_order(sorted(set(of_classes.labels)), order, known)
            notes += order_note(names)
        else:
            names = numbered(int(of_classes.labels.max(initial=-1)), of_classes.where)
            notes += _empty_note(of_classes, names)
    return _listing(rows, names, known, notes)


def _empty_note(rows: _Rows, names: list[str]) -> tuple[str, ...]:
    """What is to be said of numbers without names, of which some are no image's label."""
    used = set(np.unique(rows.labels).tolist())
    empty = [name for label, name in enumerate(names) if label not in used]
    if not empty:
        return ()
    return (
        f"no image of {rows.where} has the label {few(empty)}: labels that are numbers without names are "
        f"classes 0 to {names[-1]}, and {len(empty)} of these {len(names)} classes have none",
    )


def _listing(rows: _Rows, names: list[str], known: Sequence[str], notes: Sequence[str]) -> Listing:
    place = {name: label for label, name in enumerate(names)}
    problems, labels = Problems(str(rows.where)), np.empty(0, dtype=np.int64)
    if isinstance(rows.labels, list):
        if unknown := sorted(set(rows.labels) - place.keys()):
            problems.add_many(rows.where, "labels are no class of the training split", unknown)
        labels = np.array([place.get(name, 0) for name in rows.labels], dtype=np.int64)
    else:
        labels = rows.labels
        odd = np.flatnonzero((labels < 0) | (labels >= len(names)))
        shown = [f"{labels[row]} of {rows.paths[row]}" for row in odd.tolist()]
        problems.add_many(
            rows.where,
            f"labels are none of the {len(names)} classes (-1 is a test set without labels)",
            shown,
            len(labels),
        )
    problems.raise_if_any(_LABELLED)
    if not len(labels):
        raise UserError(f"{rows.where} holds no image; {_RESTORE}")
    if rows.names and {plain_name(name) for name in names} == {plain_name(name) for name in known}:
        now = {plain_name(name): label for label, name in enumerate(known)}
        moved = np.array([now[plain_name(name)] for name in names], dtype=np.int64)
        labels, names = moved[labels], sorted(names, key=lambda name: now[plain_name(name)])
    return Listing(Paths(rows.paths), labels.tolist(), names, packed=rows.packed, notes=tuple(notes))


def _read(root: Path, split: str, reference: str, columns: Columns, notes: list[str]) -> _Rows | None:
    """A split's rows; None where it has class folders."""
    folder = _folder_of(root, split, reference)
    if folder is None:
        there = ", ".join(inside.name for inside in subfolders(root)[:8])
        there = there or ("one split alone" if _is_split(root) else "no folder")
        if kind := "" if is_saved(root) else _loose_kind(root):
            raise UserError(
                f"data root {root} holds {kind.capitalize()} files without the order of save_to_disk; write "
                f"them once with datasets.load_dataset('{kind}', data_dir={str(root)!r}).save_to_disk(DIR), "
                "and set data.root=DIR"
            )
        raise UserError(
            f"data root {root} has no split '{split}' (it has: {there}); name another with data.train_split "
            "or data.val_split, or a part of one: train[:80%] and train[80%:]"
        )
    if folder != root and folder.name != split:
        notes.append(f"there is no '{split}' in {root}; {folder} is read for it")
    if _is_split(folder):
        return _arrow_rows(root, folder, columns)
    for name in TABLES:
        if (folder / name).is_file():
            return _table_rows(folder / name, columns)
    if split == reference and not subfolders(folder):
        raise UserError(f"{folder} has neither class folders nor {' or '.join(TABLES)}; expected {HF_LAYOUT}")
    if columns != Columns():
        raise UserError(
            f"{folder} has class folders and no columns; leave data.image_column and data.label_column out"
        )
    return None


def _loose_kind(root: Path) -> str:
    """The kind of files that lie up to three folders below ``root``, as on the Hub or in the cache."""
    places = [(kind, "*/" * depth) for kind in ("parquet", "arrow") for depth in range(4)]
    return next((kind for kind, below in places if any(root.glob(f"{below}*.{kind}"))), "")


def _folder_of(root: Path, split: str, reference: str) -> Path | None:
    """The folder of a split, or one of another usual name; of a data set without splits ``root``."""
    if _is_split(root):
        own = _mapping(root / STATE).get("_split")
        return root if split in (own, reference) else None
    present = {folder.name.lower(): folder for folder in subfolders(root)}
    names = [split, *OTHER_NAMES.get(split, ())]
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def _mapping(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} is no description of a data set; {_RESTORE}")
    return content


def _chosen(
    there: Mapping[str, Any], asked: str, usual: Sequence[str], kind: str, key: str, where: Path
) -> str:
    """The name of a column: as asked for, a usual one, or the only one of a kind."""
    kinds = {name: about.get("_type") for name, about in there.items() if isinstance(about, dict)}
    of_kind = [name for name in kinds if kinds[name] == kind]
    if asked:
        found = [asked] if asked in there else []
    else:
        found = [name for name in usual if name in there][:1] or (of_kind if len(of_kind) == 1 else [])
    if not found:
        names = ", ".join(map(str, list(there)[:20]))
        what = f"no column '{asked}'" if asked else f"none of the columns {', '.join(usual)}"
        raise UserError(f"{where} has {what}; set {key} to one of those that it has: {names}")
    return found[0]


# --- Arrow files ------------------------------------------------------------------------------------------


def _arrow_rows(root: Path, folder: Path, columns: Columns) -> _Rows:
    state, features = _mapping(folder / STATE), _mapping(folder / INFO).get("features")
    files, info = state.get("_data_files"), folder / INFO
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in files or ()]
    if not names or not all(isinstance(name, str) and PurePath(name).name == name for name in names):
        raise UserError(f"{folder / STATE} names no files beside it (_data_files); {_RESTORE}")
    if state.get("_indices_data_files"):
        raise UserError(
            f"{folder} is a selection of rows, by an old version of datasets; call flatten_indices() and "
            "save it again"
        )
    if not isinstance(features, dict):
        raise UserError(f"{info} does not say its columns (features); {_RESTORE}")
    image = _chosen(features, columns.image, IMAGES, "Image", "data.image_column", info)
    label = _chosen(features, columns.label, LABELS, "ClassLabel", "data.label_column", info)
    about = features[image]
    if isinstance(about, dict) and about.get("dtype") in _TEXT:
        raise UserError(
            f"column '{image}' of {folder} holds text, no images; set data.image_column to another, or make "
            f"images of paths by cast_column('{image}', datasets.Image()) and save it again"
        )
    about = features[label]
    classes = about.get("names") if isinstance(about, dict) else None
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise UserError(f"{info} does not name the classes of '{label}' as a list of text; {_RESTORE}")

    reading = _Arrow(root, folder, image, label)
    for name in map(str, names):
        reading.read(folder / name)
    reading.problems.raise_if_any(
        "leave such rows out, or save the data set again with save_to_disk, which puts the bytes in"
    )
    reading.unlabelled.raise_if_any(_LABELLED)
    words = reading.words
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *reading.numbers])
    if words and len(numbers):
        raise UserError(f"column '{label}' of {folder} is text here and numbers there; {_RESTORE}")
    spans = np.concatenate([np.empty((0, 3), dtype=np.int64), *reading.spans])
    packed = Packed(tuple(reading.files), spans)
    return _Rows(folder, reading.paths, words or numbers, classes or [], packed)


class _Arrow:
    """The rows of a split's files: where each image lies, and its label."""

    def __init__(self, root: Path, folder: Path, image: str, label: str) -> None:
        self.root, self.folder, self.image, self.label = root, folder, image, label
        self.problems = Problems(f"the column '{image}' of {folder}")
        self.unlabelled = Problems(f"the column '{label}' of {folder}")
        self.files: list[Path] = []
        self.paths: list[str] = []
        self.spans: list[NDArray[np.int64]] = []
        self.words: list[str] = []
        self.numbers: list[NDArray[np.int64]] = []

    def read(self, file: Path) -> None:
        first, number = 0, len(self.files)
        self.files.append(file)
        for batch in arrow_batches(file, (self.image, self.label)):
            if self.image not in batch or self.label not in batch:
                key = "data.image_column" if self.image not in batch else "data.label_column"
                name = self.image if self.image not in batch else self.label
                raise UserError(
                    f"column '{name}' of {file} holds lists or other values, which are neither images nor "
                    f"labels; set {key} to another"
                )
            self._images(file, number, batch[self.image], first)
            self._labels(file, batch[self.label], first)
            first += len(batch[self.label].there)

    def _images(self, file: Path, number: int, values: Values, first: int) -> None:
        content = values.children.get("bytes", values)
        if content.spans is None:
            raise UserError(
                f"column '{self.image}' of {file} holds no images (bytes); set data.image_column to another"
            )
        there = values.there & content.there
        spans = np.column_stack([np.full(len(there), number), content.spans])
        large = first + np.flatnonzero(there & (spans[:, 2] > MAX_BYTES))
        self.problems.add_many(
            file, f"images have more than {MAX_BYTES:,} bytes", [f"row {row}" for row in large.tolist()]
        )
        path = values.children.get("path")
        for row in np.flatnonzero(~there).tolist():
            name = ""
            if path is not None and path.spans is not None and path.there[row]:
                name = text_of(file, path.spans[row : row + 1])[0]
            spans[row] = self._beside(file, name, first + row)
        self.spans.append(spans)
        self.paths += [f"{file}/{row}" for row in range(first, first + len(there))]

    def _beside(self, file: Path, name: str, row: int) -> tuple[int, int, int]:
        """The span of an image that is a file of its own, which must lie in the data set."""
        found = None
        if name and "\0" not in name:
            places = (self.folder / name, self.root / name)
            found = next((path for path in places if path.is_file() and lies_in(self.root, path)), None)
        if found is None:
            what = f"no bytes, and its path '{name[:80]}' is no file below {self.root}"
            self.problems.add(file, f"row {row} has {what if name else 'no image'}")
            return 0, 0, 0
        require_file(found)
        self.files.append(found)
        return len(self.files) - 1, 0, found.stat().st_size

    def _labels(self, file: Path, values: Values, first: int) -> None:
        if values.numbers is not None:
            self.numbers.append(values.numbers)
        elif values.spans is not None:
            self.words += text_of(file, values.spans)
        else:
            raise UserError(
                f"column '{self.label}' of {file} holds neither text nor numbers; set data.label_column to "
                "another"
            )
        empty = [f"row {first + row}" for row in np.flatnonzero(~values.there).tolist()]
        self.unlabelled.add_many(file, "rows have no label", empty, len(values.there))


# --- metadata beside files --------------------------------------------------------------------------------


def _table_rows(file: Path, columns: Columns) -> _Rows | None:
    """The rows of a metadata file; None where it has no label, and class folders say it."""
    text, records = read_text(file, _MOST_TABLE), list[Mapping[str, Any]]()
    if file.suffix == ".csv":
        records = list(csv.DictReader(io.StringIO(text)))
    else:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                records.append(json.loads(line) if line.strip() else {})
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}:{number}: is no line of JSON; correct it") from error
    records = [record for record in records if record]
    if not records or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file} holds no lines of file_name and label; {_RESTORE}")
    there = dict.fromkeys(name for record in records[:1] for name in record)
    if not columns.label and not any(name in there for name in LABELS) and subfolders(file.parent):
        return None
    image = _chosen(there, columns.image, ("file_name",), "", "data.image_column", file)
    label = _chosen(there, columns.label, LABELS, "", "data.label_column", file)
    problems, paths, words = Problems(str(file)), list[str](), list[str]()
    for number, record in enumerate(records, 1):
        name, word = record.get(image), record.get(label)
        path = file.parent / name if isinstance(name, str) and not leads_out(name) else None
        if path is None or not path.is_file():
            problems.add(file, f"image '{str(name)[:80]}' of row {number} is no file below {file.parent}")
        elif not isinstance(word, str | int) or str(word) in ("", "-1"):
            problems.add(file, f"row {number} has no label in column '{label}'")
        else:
            paths.append(str(path))
            words.append(str(word))
    problems.raise_if_any("correct the rows, or restore the files")
    return _Rows(file, paths, words, [])
