"""Figures of a run: every encoder after an epoch, and best, last and median at the end."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from automix_transfer.data.loader import ImageLoader
from automix_transfer.mixing import Method
from automix_transfer.training.distributed import World, broadcast_buffers
from automix_transfer.training.setup.run_state import Run
from automix_transfer.training.validation import evaluate, evaluate_vectors

#: What a run is judged by, and what it is called: mAP where images have several labels.
HEADLINES = {"top1": "top-1", "map": "mAP"}
AHEAD = 0.5  # points of it by which another encoder than the one for inference must lead to be mentioned


def headline(row: Mapping[str, Any], end: str = "") -> str:
    """Which of `HEADLINES`, with ``end``, a row of figures has; of one without any, the first."""
    return next((key for key in HEADLINES if f"{key}{end}" in row), "top1")


def median_epochs(epochs: int) -> int:
    """Over how many of the last epochs the median is taken: the paper's 10, in short runs the last half."""
    return min(10, max(1, epochs // 2))


def is_evaluated(run: Run, epoch: int) -> bool:
    """Whether ``epoch`` (from 1) ends with an evaluation: every n-th, and those that the median is over."""
    config = run.experiment.train
    return epoch % config.eval_every_epochs == 0 or epoch > config.epochs - median_epochs(config.epochs)


def evaluate_encoders(
    method: Method,
    batches: ImageLoader,
    world: World,
    precision: str,
    max_batches: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """``top1``, ``top5`` and ``val_loss`` of the encoder for inference, as `evaluate` counts them.

    Where there are several encoders, ``top1_<name>`` of each. Of images with several labels ``map``, of
    `evaluate_vectors`, in the place of ``top1`` and ``top5``.
    """
    several = batches.dataset.labels.ndim == 2  # type: ignore[attr-defined]
    measure, figures = (evaluate_vectors, ("map",)) if several else (evaluate, ("top1", "top5"))
    broadcast_buffers(method, world)
    encoders = method.encoders()
    metrics: dict[str, float] = {}
    for name, encoder in encoders.items():
        found = measure(encoder, batches, world, precision, max_batches, stop)
        if not metrics:
            metrics = {key: found[key] for key in figures if key in found} | {"val_loss": found["loss"]}
        if len(encoders) > 1 and figures[0] in found:
            metrics[f"{figures[0]}_{name}"] = found[figures[0]]
    return metrics


def final_metrics(run: Run) -> dict[str, Any]:
    """Best, last and median top-1 (or mAP) of the encoder for inference, the last of each encoder, and the
    cost."""
    history = [row for row in run.at.history if headline(row) in row]
    if not history:
        return {"epochs": run.at.epoch, "steps": run.at.step}
    last, window = history[-1], history[-median_epochs(run.experiment.train.epochs) :]
    main = headline(last)
    return {
        f"{main}_last": last[main],
        f"{main}_best": run.at.best[main],
        f"{main}_best_epoch": run.at.best["epoch"],
        f"{main}_median": statistics.median(row[main] for row in window),
        "median_epochs": len(window),
        **({"top5_last": last["top5"]} if "top5" in last else {}),
        **{f"{key}_last": value for key, value in last.items() if key.startswith(f"{main}_")},
        "epochs": run.at.epoch,
        "steps": run.at.step,
        "seconds": round(run.at.seconds, 1),
    }


def of_each_encoder(metrics: dict[str, Any]) -> dict[str, str]:
    """The final metrics' key of each encoder's accuracy, ``{"k": "top1_k_last", ...}``; {} of one."""
    keys = (re.fullmatch(f"{headline(metrics, '_last')}_(.+)_last", key) for key in metrics)
    return {key[1]: key[0] for key in keys if key}


def final_message(metrics: dict[str, Any]) -> str:
    """What the run ends with, for people."""
    main = headline(metrics, "_last")
    last, median, best, epoch = (
        metrics.get(f"{main}_{end}") for end in ("last", "median", "best", "best_epoch")
    )
    if last is None:
        return f"finished after {metrics['epochs']} epochs"
    text = (
        f"finished: {HEADLINES[main]} {last:.2f} % (median of the last {metrics['median_epochs']} epochs "
        f"{median:.2f}, best {best:.2f} in epoch {epoch}), {metrics['seconds']:.0f} s"
    )
    for name, key in of_each_encoder(metrics).items():
        if metrics[key] > last + AHEAD:
            text += (
                f"\nencoder {name} is ahead of the one for inference: {metrics[key]:.2f} against "
                f"{last:.2f}; the moving average may still lag behind in a run this short"
            )
    return text
