"""What a run leaves: a table on the screen, and beside each other JSON, a CSV with a line an image, and the
curve as PNG."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from automix_transfer.io import atomic_write, write_json, write_text
from automix_transfer.localization.scores.box_results import V1, BoxResults
from automix_transfer.localization.scores.mask_results import MaskResults

Results = BoxResults | MaskResults


def write_results(results: Results, output: Path) -> list[Path]:
    """Write ``output`` (JSON) last, and beside it the CSV of images and the PNG of the curve; returns the
    files."""
    files = [output, output.with_suffix(".csv"), output.with_suffix(".png")]
    rows = [image.row() for image in results.images()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(files[1], text.getvalue())
    atomic_write(files[2], lambda file: file.write(plot(results)))
    write_json(files[0], results.summary)
    return files


def table(results: Results) -> str:
    """The numbers as text, the baselines beside them."""
    s = results.summary
    names = (
        {"MaxBoxAcc": "MaxBoxAcc", "MaxBoxAccV2": "MaxBoxAccV2"}
        if isinstance(results, BoxResults)
        else {"PxAP": "PxAP"}
    )
    columns = (s, s["center_box"], s["full_image"])
    rows = [
        (
            name,
            *(f"{column[key]:.2f}" for column in columns),
            f"t = {s['best_threshold']:.3f}" if key == V1 else "",
        )
        for key, name in names.items()
    ]
    if isinstance(results, BoxResults):
        for delta in s["per_delta"]:
            shares = (f"{column['per_delta'][delta]:.2f}" for column in columns)
            rows.append((f"  IoU >= {delta}", *shares, f"t = {s['best_thresholds'][delta]:.3f}"))
        rows += _fixed_rows(s)
    for name, key in (("top-1 accuracy", "top1_accuracy"), ("top-5 accuracy", "top5_accuracy")):
        if s[key] is not None:
            rows.append((name, f"{s[key]:.2f}", "", "", ""))
    rows += [
        (f"error: {kind}", f"{share:.2f}", "", "", "")
        for kind, share in s.get("errors", {}).items()
        if kind != "right"
    ]
    head = ("%", "this", "center box", "full image", "threshold")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if i in (0, 4) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([*lines, _footnote(results)])


def _fixed_rows(s: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of what is measured at a threshold that was fixed before."""
    rows: list[tuple[str, ...]] = []
    if split := s.get("threshold_split"):
        at = split["best_thresholds"]
        rows += [
            (f"BoxAcc, t of {split['split']}", f"{split['BoxAcc']:.2f}", "", "", f"t = {at[V1]:.3f}"),
            (
                f"BoxAccV2, t of {split['split']}",
                f"{split['BoxAccV2']:.2f}",
                "",
                "",
                "t = " + ", ".join(f"{at[delta]:.3f}" for delta in split["per_delta"]),
            ),
        ]
    fixed = f"t = {s['localization_threshold']:.3f}"
    for name, key in (
        ("GT-known localization", "gt_known"),
        ("top-1 localization", "top1_localization"),
        ("top-5 localization", "top5_localization"),
    ):
        if s[key] is not None:
            rows.append((name, f"{s[key]:.2f}", "", "", fixed))
    return rows


def _footnote(results: Results) -> str:
    s = results.summary
    where = ""
    if "output_stride" in s:
        where = (
            f", {s['map_method']} at output stride {s['output_stride']} (maps of "
            f"{s['map_cells'][0]}x{s['map_cells'][1]})"
        )
    size = f"{s['map_size']}x{s['map_size']}"
    zero = f"; {s['zero_maps']:,} of the maps are zero (constant or NaN)" if s.get("zero_maps") else ""
    what = "boxes on" if isinstance(results, BoxResults) else "masks and"
    return (
        f"{s['n_images']:,} images{where}, {what} maps of {size}, {len(results.thresholds):,} "
        f"thresholds{zero}"
    )


def plot(results: Results) -> bytes:
    """PNG: images hit against the threshold, one line a delta, the centre box dotted; with masks precision
    against recall."""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    if isinstance(results, BoxResults):
        for (name, curve), colour in zip(
            results.curves.items(), ("black", "#009e73", "#0072b2", "#d55e00"), strict=True
        ):
            label = "MaxBoxAcc, largest contour, IoU ≥ 0.5" if name == V1 else f"all contours, IoU ≥ {name}"
            axes.plot(results.thresholds, curve, color=colour, label=f"{label}: {curve.max():.1f} %")
        axes.axhline(
            results.summary["center_box"][V1], color="black", linestyle=":", label="centre box, MaxBoxAcc"
        )
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
