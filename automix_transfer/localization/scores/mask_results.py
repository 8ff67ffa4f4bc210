"""From records of masks to numbers: PxAP, its curve, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix_transfer.errors import UserError
from automix_transfer.localization.boxes.iou_curve import ScoreMapError
from automix_transfer.localization.maps import score_maps as maps
from automix_transfer.localization.records import Records
from automix_transfer.localization.scores.mask_task import MaskTask
from automix_transfer.localization.scores.metrics import about_thresholds
from automix_transfer.localization.scores.pxap import PxAP, pixel_counts, read_mask
from automix_transfer.localization.targets import TargetSet


@dataclass
class MaskImage:
    """One image: the average precision of its own pixels in percent (NaN without an object pixel)."""

    image_id: str
    label: int
    predicted: int | None
    average_precision: float
    object_pixels: int
    counted_pixels: int

    @property
    def score(self) -> float:
        """What images are ranked by."""
        return self.average_precision / 100

    def row(self) -> dict[str, Any]:
        """Its line of the CSV."""
        return {
            "image_id": self.image_id,
            "label": self.label,
            "predicted": "" if self.predicted is None else self.predicted,
            "average_precision": f"{self.average_precision:.6f}",
            "object_pixels": self.object_pixels,
            "counted_pixels": self.counted_pixels,
        }


@dataclass
class MaskResults:
    """All numbers of one evaluation with masks; percentages as floats."""

    summary: dict[str, Any]
    thresholds: NDArray[np.float64]
    curve: tuple[NDArray[np.float64], NDArray[np.float64]]  # recall and precision in percent
    records: Records
    target_set: TargetSet
    task: MaskTask

    def close(self) -> None:
        """Delete the intermediate records; the results have been written."""
        self.records.remove()

    def images(self) -> Iterator[MaskImage]:
        """Each image's row, in order."""
        for record, target in zip(self.records, self.target_set.targets, strict=True):
            own = PxAP(self.thresholds)
            own.add_counts(record["true"], record["false"])
            predicted = None if record["top"][0] < 0 else int(record["top"][0])
            objects = int(record["true"].sum())
            yield MaskImage(
                target.image_id,
                target.label,
                predicted,
                own.value if objects else float("nan"),
                objects,
                objects + int(record["false"].sum()),
            )


def summarize_masks(
    records: Records,
    target_set: TargetSet,
    task: MaskTask,
    thresholds: NDArray[np.float64],
    about: dict[str, Any] | None = None,
) -> MaskResults:
    """Everything that is reported.

    Raises:
        UserError: no mask has an object pixel.
    """
    ours, center = PxAP(thresholds), PxAP(thresholds)
    middle = maps.gaussian_map(task.map_size)
    right = five = known = 0
    for record, target in zip(records, target_set.targets, strict=True):
        ours.add_counts(record["true"], record["false"])
        center.add_counts(*pixel_counts(middle, read_mask(target, task.map_size), task.edges))
        known += int(record["top"][0] >= 0)
        right += int(record["top"][0] == target.label)
        five += int(target.label in record["top"])
    try:
        recall, precision, _ = ours.curve()
    except ScoreMapError as error:
        raise UserError(f"{error}; correct the masks of {target_set.name}") from error
    n = len(records)
    # a map that is the same everywhere predicts all pixels at once, at the precision of the objects' share
    everything = 100.0 * ours.true.sum() / (ours.true.sum() + ours.false.sum())
    summary: dict[str, Any] = {
        "PxAP": ours.value,
        "top1_accuracy": right * 100.0 / n if known == n else None,
        "top5_accuracy": five * 100.0 / n if known == n else None,
        "center_box": {"PxAP": center.value},
        "full_image": {"PxAP": float(everything)},
        "n_images": n,
        "n_classes": len(target_set.classes),
        "object_pixels": int(ours.true.sum()),
        "counted_pixels": int(ours.true.sum() + ours.false.sum()),
        **(about or {}),
        "thresholds": about_thresholds(thresholds),
    }
    return MaskResults(summary, thresholds, (100 * recall, 100 * precision), records, target_set, task)
