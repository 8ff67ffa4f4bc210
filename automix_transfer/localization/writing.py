"""What a run leaves: a table on the screen, JSON, a CSV with a line an image, and the curve as PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from automix_transfer.io import atomic_write, write_json, write_text
from automix_transfer.localization.scores.box_results import V1, BoxResults
from automix_transfer.localization.scores.mask_results import MaskResults
from automix_transfer.shown import csv_text

Results = BoxResults | MaskResults


def write_results(results: Results, output: Path) -> list[Path]:
    """Write the CSV of images, the PNG of the curve, and last ``output``, the JSON; returns the files."""
    files = [output, output.with_suffix(".csv"), output.with_suffix(".png")]
    rows = [image.row() for image in results.images()]
    write_text(files[1], csv_text([rows[0], *(row.values() for row in rows)]))
    atomic_write(files[2], lambda file: file.write(plot(results)))
    write_json(files[0], results.summary)
    return files


def table(results: Results) -> str:
    """The numbers as text, the baselines beside them."""
    s = results.summary
    columns = (s, s["center_box"], s["full_image"])
    boxes = isinstance(results, BoxResults)
    rows: list[list[Any]] = [
        [name, *(column[name] for column in columns), f"t = {s['best_threshold']:.3f}" if name == V1 else ""]
        for name in ((V1, "MaxBoxAccV2") if boxes else ("PxAP",))
    ]
    if boxes:
        rows += [
            [
                f"at IoU >= {d}",
                *(column["per_delta"][d] for column in columns),
                f"t = {s['best_thresholds'][d]:.3f}",
            ]
            for d in s["per_delta"]
        ]
        rows += _fixed_rows(s)
    rows += _rows(s, {"top-1 accuracy": "top1_accuracy", "top-5 accuracy": "top5_accuracy"})
    errors = s.get("errors", {})
    rows += _rows(errors, {f"error: {kind}": kind for kind in errors if kind != "right"})
    head = ("%", "this", "center box", "full image", "threshold")
    return tabulate(rows, head, "simple", floatfmt=".2f") + "\n" + _footnote(results)


def _rows(s: dict[str, Any], names: dict[str, str], threshold: str = "") -> list[list[Any]]:
    """Rows of what has no baseline, where it is known."""
    return [[name, s[key], "", "", threshold] for name, key in names.items() if s[key] is not None]


def _fixed_rows(s: dict[str, Any]) -> list[list[Any]]:
    """Rows of what is measured at a threshold that was fixed before."""
    rows: list[list[Any]] = []
    if split := s.get("threshold_split"):
        at, of = split["best_thresholds"], f"t of {split['split']}"
        several = "t = " + ", ".join(f"{at[delta]:.3f}" for delta in split["per_delta"])
        rows += _rows(split, {f"BoxAcc, {of}": "BoxAcc"}, f"t = {at[V1]:.3f}")
        rows += _rows(split, {f"BoxAccV2, {of}": "BoxAccV2"}, several)
    names = {
        "GT-known localization": "gt_known",
        "top-1 localization": "top1_localization",
        "top-5 localization": "top5_localization",
    }
    return rows + _rows(s, names, f"t = {s['localization_threshold']:.3f}")


def _footnote(results: Results) -> str:
    s = results.summary
    where, size = "", f"{s['map_size']}x{s['map_size']}"
    if "output_stride" in s:
        cells = "x".join(map(str, s["map_cells"]))
        where = f", {s['map_method']} at output stride {s['output_stride']} (maps of {cells})"
    zero = f"; {s['zero_maps']:,} of the maps are zero (constant or NaN)" if s.get("zero_maps") else ""
    what = "boxes on" if isinstance(results, BoxResults) else "masks and"
    return (
        f"{s['n_images']:,} images{where}, {what} maps of {size}, {len(results.thresholds):,} "
        f"thresholds{zero}"
    )


def plot(results: Results) -> bytes:
    """PNG: images hit by threshold, a line a delta, the centre box dotted; or precision by recall."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    if isinstance(results, BoxResults):
        colours = ("black", "#009e73", "#0072b2", "#d55e00")
        for (name, curve), colour in zip(results.curves.items(), colours, strict=True):
            label = "MaxBoxAcc, largest contour, IoU ≥ 0.5" if name == V1 else f"all contours, IoU ≥ {name}"
            axes.plot(results.thresholds, curve, color=colour, label=f"{label}: {curve.max():.1f} %")
        centre = results.summary["center_box"][V1]
        axes.axhline(centre, color="black", linestyle=":", label="centre box, MaxBoxAcc")
        axes.set(xlabel="threshold (share of the map's maximum)", ylabel="images hit (%)")
    else:
        axes.plot(*results.curve, color="black", label=f"PxAP {results.summary['PxAP']:.1f} %")
        axes.axhline(results.summary["full_image"]["PxAP"], color="black", linestyle=":", label="every pixel")
        axes.set(xlabel="recall (% of object pixels)", ylabel="precision (%)")
    axes.set(ylim=(0, 100), xlim=(0, 1 if isinstance(results, BoxResults) else 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
