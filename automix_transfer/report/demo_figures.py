"""The demo's figures of trained methods, with a sentence on each in ``figures/captions.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import mask_statistics, mixed_accuracy, shuffled_batches
from automix_transfer.evaluation.mixers import MIXERS, automix_mixer, load_method
from automix_transfer.figures.samples import example_pairs, lam_figure, methods_figure
from automix_transfer.io import read_json, write_json
from automix_transfer.mixing import Method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.report import slider

LAMS = (0.1, 0.3, 0.5, 0.7, 0.9)
LEAST = 8  #: validation images that mixed samples are measured on, at least


def draw_figures(
    output: Path, data: Path, automix: tuple[Method, EncoderInfo], samples: int = 512, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Write ``output/figures/`` and ``output/mixed.json``; returns each method's ``mixed_top1`` and
    ``mixed_top2`` at λ = 0.5, in percent.

    Every method is asked about mixed samples of its own kind, on ``samples`` validation images of
    ``data/imagenet``, the same for all.

    Raises:
        UserError: the AutoMix checkpoint has no Mix Block, or the validation split is too small.
    """
    method, info = automix
    figures = output / "figures"
    dataset = eval_dataset(
        DataConfig(
            dataset="imagefolder",
            root=str(data / "imagenet"),
            image_size=info.image_size,
            test_crop="squash",
            mean=list(info.mean),
            std=list(info.std),
        )
    )
    if len(dataset) < LEAST:
        raise UserError(
            f"{data / 'imagenet'} has {len(dataset)} validation images, but mixed samples need at least "
            f"{LEAST}"
        )
    many = len(dataset) >= 2 * LEAST
    pairs = example_pairs(dataset, info, count=6 if many else 3, seed=seed)
    methods_figure(figures / "methods.png", pairs, method)
    lam_figure(figures / "by_lambda.png", pairs, method)
    root = data / "imagenet"
    strips = slider.render(method, info, dataset, count=4 if many else 2, seed=seed, root=root)
    about = {"source": "pretrain/automix", "data": str(root), "seed": seed}
    slider.write(figures / "slider", strips, about)

    # every network and λ is a pass over the samples: five λ take half a minute on one core
    batches = list(shuffled_batches(dataset, 64, seed, min(samples, len(dataset))))
    accuracies: dict[str, Any] = {}
    for name, mixer in {**MIXERS, "automix": automix_mixer(method)}.items():
        file = output / "pretrain" / name / "last.pt"
        if name != "automix" and not file.is_file():
            continue
        encoder = (method if name == "automix" else load_method(file)[0]).inference_encoder()
        accuracies[name] = [row.to_dict() for row in mixed_accuracy(encoder, batches, mixer, LAMS, seed)]
    statistics = [row.to_dict() for row in mask_statistics(method, batches, LAMS, seed)]
    images = sum(len(batch[0]) for batch in batches)
    write_json(
        output / "mixed.json", {"accuracy": accuracies, "masks": statistics, "images": images, "seed": seed}
    )
    write_captions(figures, CAPTIONS)
    middle = {name: min(rows, key=lambda row: abs(row["lam"] - 0.5)) for name, rows in accuracies.items()}
    return {
        name: {"mixed_top1": round(row["top1"], 2), "mixed_top2": round(row["top2"], 2)}
        for name, row in middle.items()
    }


def write_captions(figures: Path, captions: Mapping[str, str]) -> None:
    """Add sentences to ``figures/captions.json``."""
    file = figures / "captions.json"
    write_json(file, {**(read_json(file) if file.is_file() else {}), **captions})


CAPTIONS = {
    "methods": "The same pairs under every method at λ = 0.5: MixUp blends, CutMix pastes a box without "
    "looking, AutoMix chooses whose pixel to keep.",
    "by_lambda": "AutoMix as λ goes from 0 (image j) to 1 (image i): orange parts of a mask keep image i, "
    "purple parts image j.",
}
