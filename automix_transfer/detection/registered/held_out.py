"""A part of the training images to test on instead of the test set, so that settings can be chosen."""

from __future__ import annotations

import re
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from automix_transfer.data.split_parts import bounds
from automix_transfer.detection.registered.datasets import Record, check_builtin, class_names_of
from automix_transfer.errors import UserError

KEY = "DATASETS.HOLD_OUT"
_PART = re.compile(r", (first|last) \d+%$")


def hold_out(cfg: CfgNode) -> None:
    """Where ``DATASETS.HOLD_OUT`` is P, test on the last P percent of each training set's images, and train
    on the others; ``DATASETS.TEST`` is then not looked at.

    Raises:
        UserError: P is no percentage, or leaves no image to train or to test on.
    """
    percent = cfg.DATASETS.HOLD_OUT
    if percent == 0:
        return
    if not 0 < percent < 100:
        raise UserError(f"{KEY} is {percent}; give a percentage of the training images, from 1 to 99, or 0")
    train, test = [], []
    for name in cfg.DATASETS.TRAIN:
        whole = _PART.sub("", name)  # the config of a run that goes on has the parts already
        class_names_of(whole)
        check_builtin(whole)
        train.append(_register_part(whole, f"{whole}, first {100 - percent}%", (0, 100 - percent)))
        test.append(_register_part(whole, f"{whole}, last {percent}%", (100 - percent, 100)))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(train), tuple(test)


def _register_part(whole: str, name: str, part: tuple[int, int]) -> str:
    records = DatasetCatalog.get(whole)
    begin, end = bounds(len(records), part)
    if not any(record["annotations"] for record in records[begin:end]):
        raise UserError(f"{KEY}: '{name}' has no annotated object; choose another percentage")
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, partial(_part_of, whole, begin, end))
    about = {key: value for key, value in MetadataCatalog.get(whole).as_dict().items() if key != "name"}
    ids = {record["image_id"] for record in records[begin:end]}
    MetadataCatalog.get(name).set(**about, image_ids=ids)
    return name


def _part_of(whole: str, begin: int, end: int) -> list[Record]:
    return DatasetCatalog.get(whole)[begin:end]
