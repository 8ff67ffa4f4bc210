"""Which classes are taken for which: accuracy of each class, and the most confused pairs with example images.

``confusion.json``, beside the output of ``automix-transfer evaluate --suite ...,confusion`` (a
run's lies in its folder):

    {"images": N, "top1": percent, "mean_class_top1": percent (the mean over classes that have images),
     "pairs": [{"true": name, "predicted": name, "count": images of ``true`` taken for ``predicted``,
                "of": images of ``true``, "share": count / of, "examples": [files], "sources": [files],
                "predicted_examples": [files]}, ...],
     "per_class": [{"name": name, "n": images, "top1": percent or null where n is 0}, ...] by class}

Pairs are ordered by ``count``, then ``share``. ``examples`` are small pictures of the images that were
confused, the most confident mistake first, and ``predicted_examples`` of images of ``predicted`` that were
recognised; both are PNGs, relative to the file's folder. ``sources`` are the images that they were made from.
``confusion.csv`` holds every count that is not zero: true, predicted, count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.io import atomic_write, write_json, write_text
from automix_transfer.shown import csv_text

#: name -> (fewest, most) training images of a class (Liu et al., Large-Scale Long-Tailed Recognition in an
#: Open World, CVPR 2019)
SHOTS = {"many": (101, np.inf), "medium": (20, 100), "few": (0, 19)}
PAIRS = 20  #: most confused pairs that are listed
EXAMPLES = 4  #: pictures of a pair
SIDE = 160  #: pixels of a picture's shorter side
FILE, TABLE, FOLDER = "confusion.json", "confusion.csv", "confusion"


def confusion_counts(predicted: ArrayLike, labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(K, K) images of each true class (row) by predicted class (column)."""
    cells = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def confusion_figures(
    probs: ArrayLike, labels: ArrayLike, indices: ArrayLike, pairs: int = PAIRS, examples: int = EXAMPLES
) -> dict[str, Any]:
    """The content of ``confusion.json``, with class numbers for names and image indices for pictures.

    ``counts`` beside it has rows of (true, predicted, n).

    Args:
        probs: (N, K).
        labels, indices: (N,) true class of each image, and its place in the data set.
    """
    probs_NK = np.asarray(probs)
    labels_N, indices_N = np.asarray(labels, dtype=np.int64), np.asarray(indices, dtype=np.int64)
    predicted_N, confidence_N = probs_NK.argmax(axis=1), probs_NK.max(axis=1)
    counts_KK = confusion_counts(predicted_N, labels_N, probs_NK.shape[1])
    of_K, hits_K = counts_KK.sum(axis=1), counts_KK.diagonal()
    counts = [(int(t), int(p), int(counts_KK[t, p])) for t, p in np.argwhere(counts_KK)]
    confused = [row for row in counts if row[0] != row[1]]
    confused.sort(key=lambda pair: (-pair[2], -pair[2] / of_K[pair[0]], pair))

    def shown(of_class: int, taken_for: int) -> list[int]:
        found = np.flatnonzero((labels_N == of_class) & (predicted_N == taken_for))
        return indices_N[found[np.argsort(-confidence_N[found], kind="stable")[:examples]]].tolist()

    seen = of_K > 0
    return {
        "images": len(labels_N),
        "top1": 100 * float((predicted_N == labels_N).mean()),
        "mean_class_top1": 100 * float(np.mean(hits_K[seen] / of_K[seen])),
        "pairs": [
            {
                "true": t,
                "predicted": p,
                "count": n,
                "of": int(of_K[t]),
                "share": n / int(of_K[t]),
                "examples": shown(t, p),
                "predicted_examples": shown(p, p),
            }
            for t, p, n in confused[:pairs]
        ],
        "per_class": [
            {"name": k, "n": int(of_K[k]), "top1": 100 * int(hits_K[k]) / int(of_K[k]) if of_K[k] else None}
            for k in range(len(of_K))
        ],
        "counts": counts,
    }


def shot_figures(predicted: ArrayLike, labels: ArrayLike, train_counts: ArrayLike) -> dict[str, Any]:
    """Top-1 of classes with many, medium and few training images: the mean over the group's classes of each
    class's accuracy, in percent, and how many classes those are.

    A group without a test image has no accuracy.

    Args:
        predicted, labels: (N,) of the test images.
        train_counts: (K,) training images of each class.
    """
    train_K = np.asarray(train_counts)
    counts_KK = confusion_counts(predicted, labels, len(train_K))
    of_K, hits_K = counts_KK.sum(axis=1), counts_KK.diagonal()
    figures: dict[str, Any] = {}
    for name, (fewest, most) in SHOTS.items():
        group_K = (of_K > 0) & (train_K >= fewest) & (train_K <= most)
        figures[f"{name}_shot_classes"] = int(group_K.sum())
        if group_K.any():
            figures[f"{name}_shot_top1"] = 100 * float(np.mean(hits_K[group_K] / of_K[group_K]))
    return figures


def write_confusion(
    folder: Path, figures: dict[str, Any], dataset: ClassificationDataset, about: dict[str, Any]
) -> Path:
    """Write `confusion_figures` with names and pictures into ``folder``; returns the JSON file."""
    names = [str(name) for name in dataset.classes]

    def pictures(chosen: Sequence[int]) -> list[str]:
        return [picture(folder, dataset, index) for index in chosen]

    pairs = [
        {
            **pair,
            "true": names[pair["true"]],
            "predicted": names[pair["predicted"]],
            "examples": pictures(pair["examples"]),
            "predicted_examples": pictures(pair["predicted_examples"]),
            "sources": [str(dataset.path(i)) for i in pair["examples"]],
        }
        for pair in figures["pairs"]
    ]
    per_class = [{**row, "name": names[row["name"]]} for row in figures["per_class"]]
    counts = ((names[t], names[p], n) for t, p, n in figures["counts"])
    write_text(folder / TABLE, csv_text([("true", "predicted", "count"), *counts]))
    content = {key: value for key, value in figures.items() if key not in ("pairs", "per_class", "counts")}
    write_json(folder / FILE, {**content, "pairs": pairs, "per_class": per_class, "about": about})
    return folder / FILE


def picture(folder: Path, dataset: ClassificationDataset, index: int) -> str:
    """Write a small picture of one image; returns its path relative to ``folder``, confusion/<index>.png."""
    name = f"{FOLDER}/{index:06d}.png"
    image = dataset.read(index).convert("RGB")
    scale = min(SIDE / min(image.size), 16 * SIDE / max(image.size))  # a strip stays a strip
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    atomic_write(folder / name, lambda file: image.save(file, format="PNG"))
    return name
