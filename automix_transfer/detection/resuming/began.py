"""What a detector's run began with, in ``began.json`` of its folder: a resumed run must be the same run.

The weights are known by a hash of their file, the images by their names, sizes and labels, so that both may
have moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from automix_transfer.config import read_yaml
from automix_transfer.detection.registered.datasets import files_of, is_released_coco
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, sha256_of, write_json
from automix_transfer.owner import refuse_foreign

BEGAN = "began.json"
RESULTS = "results.json"  #: of a run that was trained to its end
ANY_CHECKPOINT = ("last_checkpoint", "model_final.pth", "model_[0-9]*.pth")
REMEDY = "that is another training; give what it was begun with, or choose another OUTPUT_DIR to start afresh"


def write_began(cfg: CfgNode, loaded: str, best_metric: str) -> dict[str, Any]:
    """Note in OUTPUT_DIR what a run begins with; ``loaded`` says in words what was loaded of its weights."""
    began = {
        "weights": cfg.MODEL.WEIGHTS,
        "weights_sha256": weights_hash(cfg.MODEL.WEIGHTS),
        "loaded": loaded,
        "best_metric": best_metric,
        "train": images_of(cfg.DATASETS.TRAIN),
        "test": images_of(cfg.DATASETS.TEST),
    }
    write_json(Path(cfg.OUTPUT_DIR) / BEGAN, began)
    return began


def read_began(folder: str | Path) -> dict[str, Any]:
    """What `write_began` wrote; empty of a run that an older version began."""
    file = Path(folder) / BEGAN
    found = read_json(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def refuse_other_folder(folder: Path, resume: bool = False) -> None:
    """A run that begins must not write over files of something else; where it was to ``resume`` one, nor over
    its figures.

    Raises:
        UserError: names the file.
    """
    refuse_foreign(folder / "run.json", lambda _: False, "file of a detector's run, but of a pretraining")
    refuse_foreign(folder / "config.yaml", _is_config, "config of a detector")
    if not (folder / BEGAN).exists():
        for name in ("metrics.json", RESULTS):
            refuse_foreign(folder / name, lambda _: False, f"file of a detector's run, for it has no {BEGAN}")
    elif resume and (folder / RESULTS).exists():
        raise UserError(
            f"{folder / RESULTS} has the figures of a finished run, whose checkpoints are gone, so there is "
            "nothing to resume; leave --resume out to train anew, or choose another OUTPUT_DIR"
        )


def _is_config(file: Path) -> bool:
    return {"MODEL", "SOLVER"} <= read_yaml(file).keys()


def has_checkpoint(folder: str | Path) -> bool:
    """Whether a run's folder holds a checkpoint to go on from, named by ``last_checkpoint`` or not."""
    return any(file.is_file() for pattern in ANY_CHECKPOINT for file in Path(folder).glob(pattern))


def weights_hash(file: str) -> str | None:
    """SHA-256 of a weights file; None of none."""
    return sha256_of(file) if file and Path(file).is_file() else None


def images_of(names: Iterable[str]) -> dict[str, Any]:
    """How many images data sets hold, and a hash of their names, sizes and labels, in their order."""
    digest, count = hashlib.sha256(), 0
    for line in (line for name in names for line in _lines(name)):
        digest.update(line.encode(errors="surrogateescape"))
        count += 1
    return {"images": count, "sha256": digest.hexdigest()}


def _lines(name: str) -> Iterator[str]:
    if is_released_coco(name):
        yield from (f"{Path(file).name}\n" for file in files_of(name))
        return
    for record in DatasetCatalog.get(name):
        labels = " ".join(str(item["category_id"]) for item in record["annotations"])
        yield f"{Path(record['file_name']).name} {record['width']}x{record['height']} {labels}\n"


def refuse_other_weights(cfg: CfgNode, began: Mapping[str, Any], saved: str, typed: bool) -> str:
    """Refuse ``MODEL.WEIGHTS`` of the command line that the run was not begun with; returns a note, or "".

    Args:
        saved: ``MODEL.WEIGHTS`` in the run's config.
        typed: whether the command line gives it.
    """
    given = str(cfg.MODEL.WEIGHTS)
    now = weights_hash(given)
    before = began["weights_sha256"] if "weights_sha256" in began else weights_hash(saved)
    if now == before and (now is not None or given == saved):
        return ""
    if given == saved and (now is None or before is None):
        return ""  # no longer there, and not needed
    if typed:
        raise UserError(
            f"{cfg.OUTPUT_DIR} was begun with MODEL.WEIGHTS {saved!r}, and {given!r} is another file, or of "
            f"other content: {REMEDY}"
        )
    return f"MODEL.WEIGHTS {given} has changed since the run began; it goes on from its own checkpoint"


def refuse_other_images(cfg: CfgNode, began: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Refuse fewer or other images than the run was begun on; ``parts`` are of ``train`` and ``test``."""
    for part in parts:
        before = began.get(part)
        now = images_of(cfg.DATASETS[part.upper()]) if before else before
        if now != before and now and before:
            same = "as many" if now["images"] == before["images"] else f"{now['images']:,}"
            raise UserError(
                f"{cfg.OUTPUT_DIR} was begun on {before['images']:,} images to {part} on (DATASETS."
                f"{part.upper()}), and now there are {same} others: {REMEDY}"
            )


def refuse_shorter(cfg: CfgNode, done: int) -> None:
    """Refuse a schedule that ends before what is done."""
    if cfg.SOLVER.MAX_ITER < done:
        raise UserError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, but the run in {cfg.OUTPUT_DIR} has {done} "
            f"iterations behind it; give {done} or more, or choose another OUTPUT_DIR to start afresh"
        )
