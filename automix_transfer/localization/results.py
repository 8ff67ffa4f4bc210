"""From records to numbers: the metrics, the baselines, the table, and the files that a run leaves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from automix_transfer.io import atomic_write, write_json, write_text
from automix_transfer.localization import maps
from automix_transfer.localization.boxes import largest_boxes, pairwise_iou, quantize, slots
from automix_transfer.localization.metrics import V1_DELTA, V2_DELTAS, BoxAccuracy, MaxBoxAcc, MaxBoxAccV2
from automix_transfer.localization.records import Records
from automix_transfer.localization.targets import Target, boxes_on_map


@dataclass
class ImageResult:
    """One image at the run's threshold: boxes in pixels of the map, IoU of the largest contour's box, and the best IoU of any threshold."""

    image_id: str
    label: int
    predicted: int | None
    iou: float
    box: tuple[int, int, int, int]
    best_iou: float
    iou_all_contours: float
    true_boxes: list[list[int]]


@dataclass
class Results:
    """All numbers of one evaluation; `to_dict` is the content of ``out.json``, percentages as floats."""

    summary: dict[str, Any]
    thresholds: NDArray[np.float64]
    curves: dict[str, NDArray[np.float64]]
    records: Records
    targets: list[Target]

    def to_dict(self) -> dict[str, Any]:
        """MaxBoxAcc, MaxBoxAccV2, per_delta, best_threshold(s), gt_known, top-1/top-5, baselines, per_class, settings."""
        return self.summary

    def images(self) -> Iterator[ImageResult]:
        """Each image's row, in order, at ``localization_threshold``."""
        threshold = np.array([self.summary["localization_threshold"]])
        for record, target in zip(self.records, self.targets, strict=True):
            peak = int(record["peak"])
            slot = int(slots(threshold, peak)[0])
            used = slots(self.thresholds, peak)
            predicted = int(record["top"][0])
            yield ImageResult(target.image_id, target.label, None if predicted < 0 else predicted, float(record["largest"][slot]),
                              tuple(record["boxes"][slot].tolist()), float(record["largest"][used].max()), float(record["all"][slot]),
                              boxes_on_map(target, tuple(record["size"].tolist()), self.summary["map_size"]).astype(int).tolist())

    def table(self) -> str:
        """The numbers as text, the baselines beside them."""
        s = self.summary
        columns = (s, s["center_box"], s["full_image"])
        rows = [("MaxBoxAcc", *(f"{column['MaxBoxAcc']:.2f}" for column in columns), f"t = {s['best_thresholds']['MaxBoxAcc']:.3f}"),
                ("MaxBoxAccV2", *(f"{column['MaxBoxAccV2']:.2f}" for column in columns), "")]
        for delta in s["per_delta"]:
            shares = (f"{column['per_delta'][delta]:.2f}" for column in columns)
            rows.append((f"  IoU >= {delta}", *shares, f"t = {s['best_thresholds'][delta]:.3f}"))
        fixed = f"t = {s['localization_threshold']:.3f}"
        for name, key, note in (("GT-known localization", "gt_known", fixed), ("top-1 localization", "top1_localization", fixed),
                                ("top-5 localization", "top5_localization", fixed), ("top-1 accuracy", "top1_accuracy", ""),
                                ("top-5 accuracy", "top5_accuracy", "")):
            if s[key] is not None:
                rows.append((name, f"{s[key]:.2f}", "", "", note))
        head = ("%", "this", "center box", "full image", "threshold")
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(5)]
        lines = ["  ".join(cell.ljust(width) if i in (0, 4) else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in (head, *rows)]
        stride = f", output stride {s['output_stride']} (maps of {s['map_cells'][0]}x{s['map_cells'][1]})" if "output_stride" in s else ""
        zero = f"; {s['zero_maps']:,} of the maps are zero (constant or NaN)" if s["zero_maps"] else ""
        size = f"{s['map_size']}x{s['map_size']}"
        lines.append(f"{s['n_images']:,} images{stride}, boxes on maps of {size}, {len(self.thresholds):,} thresholds{zero}")
        return "\n".join(lines)

    def write(self, output: Path) -> list[Path]:
        """Write ``output`` (JSON), and beside it the CSV of images and the PNG of accuracy against threshold; returns the files."""
        files = [output, output.with_suffix(".csv"), output.with_suffix(".png")]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image_id", "label", "predicted", "iou", "x0", "y0", "x1", "y1", "best_iou", "iou_all_contours"])
        for row in self.images():
            writer.writerow([row.image_id, row.label, "" if row.predicted is None else row.predicted, f"{row.iou:.6f}", *row.box,
                             f"{row.best_iou:.6f}", f"{row.iou_all_contours:.6f}"])
        write_text(files[1], text.getvalue())
        atomic_write(files[2], lambda file: file.write(self.plot()))
        write_json(files[0], self.to_dict())
        return files

    def plot(self) -> bytes:
        """PNG of the share of images hit against the threshold, one line a delta, the centre box dotted."""
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for (name, curve), colour in zip(self.curves.items(), ("black", "tab:green", "tab:blue", "tab:red"), strict=False):
            label = "MaxBoxAcc, largest contour, IoU ≥ 0.5" if name == "MaxBoxAcc" else f"all contours, IoU ≥ {name}"
            axes.plot(self.thresholds, curve, color=colour, label=f"{label}: {curve.max():.1f} %")
        axes.axhline(self.summary["center_box"]["MaxBoxAcc"], color="black", linestyle=":", label="centre box, MaxBoxAcc")
        axes.set(xlabel="threshold (share of the map's maximum)", ylabel="images hit (%)", xlim=(0, 1), ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()


def summarize(records: Records, targets: list[Target], classes: list[str], map_size: int, thresholds: NDArray[np.float64],
              threshold: float | None, about: dict[str, Any]) -> Results:
    """Everything that is reported, in one pass over the records (a second one a class, once the threshold is known).

    Args:
        threshold: fixed threshold of GT-known and top-k localization; None takes the one MaxBoxAcc is reached at.
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    v1, v2 = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds)
    center, center_v2 = MaxBoxAcc(thresholds), MaxBoxAccV2(thresholds)
    full, full_v2 = MaxBoxAcc(thresholds[:1]), MaxBoxAccV2(thresholds[:1])
    grey = quantize(maps.gaussian_map(map_size))
    center_boxes, center_slots = largest_boxes(grey), slots(thresholds, int(grey.max()))
    full_box = np.array([[0, 0, map_size - 1, map_size - 1]])
    zero_maps = 0
    for record, target in zip(records, targets, strict=True):
        used = slots(thresholds, int(record["peak"]))
        v1.add(record["largest"][used])
        v2.add(record["all"][used])
        zero_maps += record["peak"] == 0
        true_boxes = boxes_on_map(target, tuple(record["size"].tolist()), map_size)
        curve = pairwise_iou(center_boxes, true_boxes).max(axis=1)[center_slots]
        for accuracy in (center, center_v2):
            accuracy.add(curve)
        for accuracy in (full, full_v2):
            accuracy.add(pairwise_iou(full_box, true_boxes).max(axis=1))
    best_index = v1.best(V1_DELTA)[1]
    fixed = float(thresholds[best_index]) if threshold is None else float(threshold)
    summary = {
        "MaxBoxAcc": v1.value, "MaxBoxAccV2": v2.value, "per_delta": _per_delta(v2),
        "best_threshold": float(thresholds[best_index]),
        "best_thresholds": {"MaxBoxAcc": float(thresholds[best_index]), **{str(d): float(thresholds[v2.best(d)[1]]) for d in V2_DELTAS}},
        "localization_threshold": fixed, **_localization(records, targets, classes, fixed),
        "center_box": _baseline(center, center_v2), "full_image": _baseline(full, full_v2),
        "n_images": len(records), "n_classes": len(classes), "zero_maps": int(zero_maps), **about,
        "thresholds": {"first": float(thresholds[0]), "last": float(thresholds[-1]), "count": len(thresholds)},
    }
    curves = {"MaxBoxAcc": v1.curve(V1_DELTA), **{str(d): v2.curve(d) for d in V2_DELTAS}}
    return Results(summary, thresholds, curves, records, targets)


def _localization(records: Records, targets: list[Target], classes: list[str], threshold: float) -> dict[str, Any]:
    """GT-known, top-1 and top-5 localization at one threshold, classification accuracy, and both a class."""
    at = np.array([threshold])
    counts = np.zeros((len(classes), 6), dtype=np.int64)  # images, hits, class right, both, class in the top 5, both
    known = True
    for record, target in zip(records, targets, strict=True):
        hit = record["largest"][slots(at, int(record["peak"]))[0]] >= V1_DELTA
        known &= bool(record["top"][0] >= 0)
        first, five = record["top"][0] == target.label, target.label in record["top"]
        counts[target.label] += (1, hit, first, hit and first, five, hit and five)
    total = counts.sum(axis=0) * 100.0 / max(len(targets), 1)
    per_class = {classes[c]: {"n_images": int(n), "gt_known": row[1] * 100.0 / n, "top1_accuracy": row[2] * 100.0 / n if known else None}
                 for c, row in enumerate(counts.tolist()) if (n := row[0])}
    names = ("gt_known", "top1_accuracy", "top1_localization", "top5_accuracy", "top5_localization")
    shares = {name: float(value) if known or name == "gt_known" else None for name, value in zip(names, total[1:], strict=True)}
    return {**shares, "per_class": per_class}


def _per_delta(accuracy: BoxAccuracy) -> dict[str, float]:
    return {str(delta): accuracy.best(delta)[0] for delta in accuracy.deltas}


def _baseline(v1: MaxBoxAcc, v2: MaxBoxAccV2) -> dict[str, Any]:
    return {"MaxBoxAcc": v1.value, "MaxBoxAccV2": v2.value, "per_delta": _per_delta(v2)}
