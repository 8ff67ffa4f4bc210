"""The reference's metadata files for boxes (CUB, ILSVRC) and masks (OpenImages), checked line by line."""

from __future__ import annotations

from pathlib import Path

from automix_transfer.data.listing import Box, Problems, leads_out, parse_box, read_lines
from automix_transfer.errors import UserError
from automix_transfer.io import regular_file
from automix_transfer.localization.targets import Target, TargetSet, image_size

METADATA_FILES = ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")
# every class up to the largest takes memory; a subset of a data set may have few images and high labels
MAX_LABEL = 99_999
_RESTORE = "restore the metadata files from their source"


def read_metadata(folder: Path, masks: Path | None = None) -> TargetSet:
    """Targets from the reference's files, in the order of ``image_ids.txt``.

    ``image_ids.txt`` has lines of id, ``class_labels.txt`` id,class, ``image_sizes.txt`` id,width,height and
    ``localization.txt`` id,x0,y0,x1,y1, or with masks id,mask file,ignore file (may be empty) and then no
    sizes are needed. An id with several boxes or masks has several lines there.

    Args:
        masks: folder that the paths of mask and ignore files start from.

    Raises:
        UserError: files or lines missing, malformed or contradictory, ids or paths that lead out of a folder,
            masks that are missing or no images; all are named with their line. Or ``masks`` is given and
            boxes are there.
    """
    if not folder.is_dir():
        raise UserError(f"metadata folder {folder} does not exist; it holds {', '.join(METADATA_FILES)}")
    problems = Problems(str(folder))
    ids = _image_ids(folder / "image_ids.txt", problems)
    labels = _one_per_image(
        folder / "class_labels.txt", ids, problems, 1, "<image id>,<class number from 0>", 0, MAX_LABEL
    )
    where = folder / "localization.txt"
    notes: tuple[str, ...] = ()
    if _has_masks(where):
        if masks is None:
            raise UserError(
                f"{where} names mask files; say which folder their paths start from (--masks DIR)"
            )
        found = _masks(where, ids, masks, problems)
        problems.raise_if_any(_RESTORE)
        targets = [Target(i, labels[i][0], masks=tuple(found[i][0]), ignore=found[i][1]) for i in ids]
    else:
        sizes = _one_per_image(folder / "image_sizes.txt", ids, problems, 2, "<image id>,<width>,<height>", 1)
        boxes, beyond = _boxes(where, ids, sizes, problems)
        problems.raise_if_any(_RESTORE)
        if masks is not None:
            raise UserError(
                f"{where} has boxes and no mask files, so --masks {masks} would not be used; leave it out"
            )
        targets = [Target(i, labels[i][0], tuple(boxes[i]), (sizes[i][0], sizes[i][1])) for i in ids]
        if beyond:
            notes = (f"{beyond} boxes of {where} reach beyond their images; the reference takes them so",)
    classes = [str(label) for label in range(max(target.label for target in targets) + 1)]
    return TargetSet(folder.name, targets, classes, known_classes=False, notes=notes)


def _has_masks(path: Path) -> bool:
    """Whether the first line names files instead of coordinates: three fields."""
    try:
        with regular_file(path, "restore it").open(encoding="utf-8") as file:
            first = next((line for line in file if line.strip()), "")
    except (UserError, OSError, UnicodeDecodeError):
        return False
    return first.count(",") == 2


def _image_ids(path: Path, problems: Problems) -> dict[str, None]:
    ids: dict[str, None] = {}
    for line, (image_id,) in read_lines(path, 1, problems, separator=",", form="<image id>"):
        if leads_out(image_id):
            problems.add(path, f"id '{image_id[:60]}' is absolute or leads out of its folder", line)
        elif image_id in ids:
            problems.add(path, f"id '{image_id[:60]}' stands twice", line)
        else:
            ids[image_id] = None
    return ids


def _one_per_image(
    path: Path,
    ids: dict[str, None],
    problems: Problems,
    numbers: int,
    form: str,
    smallest: int,
    largest: int | None = None,
) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line, (image_id, *fields) in read_lines(path, 1 + numbers, problems, separator=",", form=form):
        texts = [field.strip() for field in fields]
        values = [int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1 for text in texts]
        if image_id not in ids:
            problems.add(path, f"id '{image_id[:60]}' is not in image_ids.txt", line)
        elif image_id in found:
            problems.add(path, f"id '{image_id[:60]}' stands twice", line)
        elif min(values) < smallest or (largest is not None and max(values) > largest):
            most = "" if largest is None else f" and at most {largest}"
            problems.add(
                path, f"'{','.join(fields)[:60]}' must be whole numbers of at least {smallest}{most}", line
            )
        else:
            found[image_id] = values
    _complain_about_absent(path, ids, found, problems)
    return found


def _boxes(
    path: Path, ids: dict[str, None], sizes: dict[str, list[int]], problems: Problems
) -> tuple[dict[str, list[Box]], int]:
    """Boxes of each image, and how many reach beyond it, which the reference measures as they are."""
    found: dict[str, list[Box]] = {}
    beyond = 0
    for line, (image_id, *fields) in read_lines(
        path, 5, problems, separator=",", form="<image id>,<x0>,<y0>,<x1>,<y1>"
    ):
        box = parse_box(fields)
        width, height = sizes.get(image_id, (float("inf"), float("inf")))
        if image_id not in ids:
            problems.add(path, f"id '{image_id[:60]}' is not in image_ids.txt", line)
        elif box is None or box[2] < box[0] or box[3] < box[1]:
            problems.add(
                path, f"'{','.join(fields)[:60]}' is not a box x0,y0,x1,y1 with x0 <= x1 and y0 <= y1", line
            )
        elif min(box) < 0 or box[0] > width or box[1] > height or box[2] > 16 * width or box[3] > 16 * height:
            problems.add(
                path, f"box {','.join(fields)[:60]} lies outside its image of {width}x{height}", line
            )
        else:
            beyond += box[2] > width or box[3] > height
            found.setdefault(image_id, []).append(box)
    _complain_about_absent(path, ids, found, problems)
    return found, beyond


def _masks(
    path: Path, ids: dict[str, None], root: Path, problems: Problems
) -> dict[str, tuple[list[Path], Path | None]]:
    found: dict[str, tuple[list[Path], Path | None]] = {}
    for line, (image_id, *names) in read_lines(
        path, 3, problems, separator=",", form="<image id>,<mask file>,<ignore file or nothing>"
    ):
        mask, ignore = (name.strip() for name in names)
        bad = next((name for name in (mask, ignore or mask) if leads_out(name)), None)
        earlier = found.get(image_id)
        ignored = root / ignore if ignore else None
        if image_id not in ids:
            problems.add(path, f"id '{image_id[:60]}' is not in image_ids.txt", line)
        elif bad is not None:
            problems.add(path, f"file '{bad[:60]}' is empty, absolute or leads out of its folder", line)
        elif earlier and root / mask in earlier[0]:
            problems.add(path, f"mask '{mask[:60]}' of id '{image_id[:60]}' stands twice", line)
        elif earlier and earlier[1] != ignored:
            problems.add(path, f"id '{image_id[:60]}' has two ignore files", line)
        else:
            for file in filter(None, (root / mask, ignored if earlier is None else None)):
                image_size(file, problems)
            found.setdefault(image_id, ([], ignored))[0].append(root / mask)
    _complain_about_absent(path, ids, found, problems)
    return found


def _complain_about_absent(path: Path, ids: dict[str, None], found: dict, problems: Problems) -> None:
    mentioned = {text for text in problems.found if text.startswith(f"{path}:")}
    absent = [image_id for image_id in ids if image_id not in found]
    if absent and not mentioned:
        problems.add(
            path, f"{len(absent)} of {len(ids)} ids of image_ids.txt have no line, e.g. '{absent[0]}'"
        )
