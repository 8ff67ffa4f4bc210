"""Figures of a run: every encoder after an epoch, and best, last and median at the end."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

from automix_transfer.data.loader import ImageLoader
from automix_transfer.mixing import Method
from automix_transfer.training.distributed import World, broadcast_buffers
from automix_transfer.training.setup import Run
from automix_transfer.training.validation import evaluate

AHEAD = 0.5  # points of top-1 by which another encoder than the one for inference must lead to be mentioned


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

    Where there are several encoders, ``top1_<name>`` of each.
    """
    broadcast_buffers(method, world)
    encoders = method.encoders()
    metrics: dict[str, float] = {}
    for name, encoder in encoders.items():
        found = evaluate(encoder, batches, world, precision, max_batches, stop)
        if not metrics:
            metrics = {"top1": found["top1"], "top5": found["top5"], "val_loss": found["loss"]}
        if len(encoders) > 1:
            metrics[f"top1_{name}"] = found["top1"]
    return metrics


def final_metrics(run: Run) -> dict[str, Any]:
    """Best, last and median top-1 of the encoder for inference, the last of each encoder, and the cost."""
    history = [row for row in run.at.history if "top1" in row]
    if not history:
        return {"epochs": run.at.epoch, "steps": run.at.step}
    last, window = history[-1], history[-median_epochs(run.experiment.train.epochs) :]
    return {
        "top1_last": last["top1"],
        "top1_best": run.at.best["top1"],
        "top1_best_epoch": run.at.best["epoch"],
        "top1_median": statistics.median(row["top1"] for row in window),
        "median_epochs": len(window),
        "top5_last": last["top5"],
        **{f"{key}_last": value for key, value in last.items() if key.startswith("top1_")},
        "epochs": run.at.epoch,
        "steps": run.at.step,
        "seconds": round(run.at.seconds, 1),
    }


def of_each_encoder(metrics: dict[str, Any]) -> dict[str, str]:
    """The final metrics' key of each encoder's accuracy, ``{"k": "top1_k_last", ...}``; {} of one."""
    keys = (re.fullmatch("top1_(.+)_last", key) for key in metrics)
    return {key[1]: key[0] for key in keys if key}


def final_message(metrics: dict[str, Any]) -> str:
    """What the run ends with, for people."""
    if "top1_last" not in metrics:
        return f"finished after {metrics['epochs']} epochs"
    text = (
        f"finished: top-1 {metrics['top1_last']:.2f} % (median of the last {metrics['median_epochs']} epochs "
        f"{metrics['top1_median']:.2f}, best {metrics['top1_best']:.2f} in epoch "
        f"{metrics['top1_best_epoch']}), {metrics['seconds']:.0f} s"
    )
    for name, key in of_each_encoder(metrics).items():
        if metrics[key] > metrics["top1_last"] + AHEAD:
            text += (
                f"\nencoder {name} is ahead of the one for inference: {metrics[key]:.2f} against "
                f"{metrics['top1_last']:.2f}; the moving average may still lag behind in a run this short"
            )
    return text
