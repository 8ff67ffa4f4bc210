"""What the comparisons of methods share: which methods are asked for, and the table over seeds and learning
curves of their runs."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json, write_text


def choose(asked: Sequence[str], known: Mapping[str, Any], option: str) -> list[str]:
    """The names asked for, each once.

    Raises:
        UserError: ``option`` names something that does not exist.
    """
    for name in asked:
        if name not in known:
            raise UserError(f"{option} '{name}' is unknown; choose from {', '.join(known)}")
    return list(dict.fromkeys(asked))


def compare(
    output: Path, methods: Iterable[str], seeds: Sequence[int], batch: int, setting: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Print mean and standard deviation over ``seeds`` of the last top-1 (%) of the runs
    ``output/METHOD_SEED``, the best first.

    Written: ``table.json`` with the rows and ``setting``, ``curves.csv`` with the loss and accuracy of every
        evaluated epoch of every run.
    AutoMix has a row for each encoder, k and q. ``ms_a_step`` is the median over epochs, of a step of
    ``batch`` images.
    """
    rows: list[dict[str, Any]] = []
    curves = ["method,seed,epoch,loss,top1,top1_q"]
    for name in dict.fromkeys(methods):
        runs = {seed: output / f"{name}_{seed}" for seed in seeds}
        metrics = [read_json(run / "metrics.json") for run in runs.values()]
        histories = {
            seed: list(csv.DictReader((run / "log.csv").open(encoding="utf-8"))) for seed, run in runs.items()
        }
        speed = statistics.median(
            float(row["images_per_s"]) for history in histories.values() for row in history
        )
        for key in (key for key in ("top1_last", "top1_q_last") if key in metrics[0]):
            values = [one[key] for one in metrics]
            rows.append(
                {
                    "method": name if key == "top1_last" else f"{name}, encoder q",
                    "top1": statistics.mean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "values": values,
                    "ms_a_step": 1000 * batch / speed,
                }
            )
        curves += [
            ",".join([name, str(seed), *(row.get(key, "") for key in ("epoch", "loss", "top1", "top1_q"))])
            for seed, history in histories.items()
            for row in history
            if row.get("top1")
        ]
    rows.sort(key=lambda row: -row["top1"])
    write_json(output / "table.json", {"seeds": list(seeds), **setting, "rows": rows})
    write_text(output / "curves.csv", "\n".join(curves) + "\n")
    print(
        f"| method | top-1 (%), {len(seeds)} seed{'s' if len(seeds) > 1 else ''} | ms a step of {batch} |\n| "
        "--- | --- | --- |"
    )
    for row in rows:
        spread = f" ± {row['std']:.2f}" if row["std"] is not None else ""
        print(f"| {row['method']} | {row['top1']:.2f}{spread} | {row['ms_a_step']:.0f} |")
    return rows
