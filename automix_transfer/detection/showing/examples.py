"""What a trained detector finds on a few test images, for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog
from numpy.typing import NDArray

from automix_transfer.data.images import read_image
from automix_transfer.detection.registered.datasets import register_folder
from automix_transfer.detection.showing.inference import load_run
from automix_transfer.detection.showing.rectangles import drawable

MOST_PIXELS = 1 << 22  #: of an example, which is shown at a few hundred pixels a side


@dataclass(frozen=True)
class Detections:
    """One image (H, W, 3) uint8, smaller where it has more than `MOST_PIXELS`, its true boxes (N, 4), and the
    boxes (M, 4) found with a score of at least the threshold, x0 y0 x1 y1 in its pixels."""

    image: NDArray[np.uint8]
    true_boxes: NDArray[np.float64]
    boxes: NDArray[np.float64]
    labels: list[int]
    names: list[str]
    scores: list[float]


def detect_examples(
    run: Path,
    data_root: Path | None,
    count: int,
    threshold: float = 0.3,
    class_names: Path | None = None,
    device: str = "cpu",
) -> list[Detections]:
    """Run the detector of ``run`` (the folder of a finished training) on ``count`` test images, spread over
    the split.

    Args:
        data_root: as for training; None takes the config's own DATASETS.TEST.

    Raises:
        UserError: the folder holds no trained detector, or there is no such data.
    """
    detector = load_run(run, device=device)
    test = (
        register_folder(data_root, class_names).test[0]
        if data_root is not None
        else detector.cfg.DATASETS.TEST[0]
    )
    records = DatasetCatalog.get(test)
    found = []
    for index in spread(len(records), count):
        record = records[index]
        read = read_image(record["file_name"], upright=True)
        instances = detector.detect(read)
        picture, scale = drawable(read, MOST_PIXELS)
        instances = instances[instances.scores >= threshold]
        labels = instances.pred_classes.tolist()
        found.append(
            Detections(
                np.asarray(picture),
                scale * np.array([item["bbox"] for item in record["annotations"]], float).reshape(-1, 4),
                scale * instances.pred_boxes.tensor.double().numpy(),
                labels,
                [detector.names[label] for label in labels],
                instances.scores.tolist(),
            )
        )
    return found


def spread(total: int, count: int) -> list[int]:
    """``count`` indices of ``total``, evenly spread, all where there are fewer."""
    return [round(index) for index in np.linspace(0, total - 1, min(count, total))] if total else []
