"""What any classifier is worth on a folder of images: the parts of the suite, and their figures.

One pass over the images: each is read once and, as it is, classified once; FGSM takes its gradient from that
same pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.evaluation import calibration
from automix_transfer.evaluation.attacks import OfPixels, gradient_of, pgd, signed_step
from automix_transfer.evaluation.confusion import confusion_figures, shot_figures
from automix_transfer.evaluation.corrupted import corrupted_hits, summarize
from automix_transfer.evaluation.corruptions import SEVERITIES
from automix_transfer.evaluation.suite_options import SuiteOptions, check_options
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.training.average_precision import class_precisions, mean_precision


def evaluate_suite(
    encoder: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    mean: Sequence[float],
    std: Sequence[float],
    options: SuiteOptions | None = None,
    progress: Callable[[int], None] = lambda done: None,
    train_counts: Sequence[int] = (),
) -> dict[str, Any]:
    """Every figure of the parts asked for, in percent unless said otherwise, over all images of ``loader``.

    ``clean``: top1, top5; of images with several labels map and class_ap, a list. ``calibration``: ece10,
    ece15, adaptive_ece15, brier (0 to 2), nll (nats) and the 15 reliability bins. ``fgsm``, ``pgd``: the
    error, 100 - top-1, on attacked images. ``corruption``: top-1 under each corruption at each severity, made
    here, and its means. ``confusion``: see `confusion_figures`. ``shots``: see `shot_figures`. And
    ``images``: how many.

    Args:
        loader: (images (N, 3, H, W) normalised by mean and std, labels (N,), indices); for ``clean`` alone
            labels may be (N, K).
        progress: called with the number of images done after each batch.
        train_counts: for ``shots``: (K,) training images of each class.

    Raises:
        UserError: no part, an unknown one, no image, or a logit that is not finite.
    """
    options = options or SuiteOptions()
    check_options(options)
    device = next(encoder.parameters()).device
    network = OfPixels(encoder, mean, std).to(device)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    names = options.corruptions if "corruption" in options.parts else ()
    hits = np.zeros((len(names), len(SEVERITIES)), dtype=np.int64)
    attacked: Counter[str] = Counter()
    done = 0
    with eval_mode(encoder), torch.no_grad():
        for images, labels, indices in loader:
            images, labels = images.to(device), labels.to(device)
            clean, recognised = _attacks(network, images, labels, indices, options)
            attacked.update(recognised)
            if names:
                hits += corrupted_hits(
                    network, network.pixels_of(images), labels, indices, names, options.seed
                )
            seen.append((clean.cpu(), labels.cpu(), torch.as_tensor(indices)))
            done += len(labels)
            progress(done)
    if not done:
        raise UserError("there is no image to evaluate")
    logits_NK, labels_N, indices_N = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
    figures = {"images": done, **clean_figures(logits_NK, labels_N, options.parts)}
    figures |= {f"{name}_error": 100 - 100 * count / done for name, count in attacked.items()}
    if names:
        figures |= summarize(dict(zip(names, (100 * hits / done).tolist(), strict=True)), "generated", done)
    if "confusion" in options.parts:
        probs_NK = calibration.probabilities(logits_NK)
        figures["confusion"] = confusion_figures(probs_NK, labels_N, indices_N)
    if "shots" in options.parts:
        figures |= shot_figures(logits_NK.argmax(axis=1), labels_N, train_counts)
    return figures


def _attacks(
    network: OfPixels, images: Tensor, labels: Tensor, indices: Tensor, options: SuiteOptions
) -> tuple[Tensor, dict[str, int]]:
    """Logits (N, K) of normalised images (N, 3, H, W), and how many each attack leaves recognised.

    FGSM's gradient comes from the pass that gives the logits: of the same images, to 1e-7.
    """
    attacked: dict[str, Tensor] = {}
    clean, pixels = None, network.pixels_of(images)
    if "fgsm" in options.parts:
        gradient, clean = gradient_of(network, pixels, labels)
        attacked["fgsm"] = signed_step(pixels, gradient, options.epsilon)
    if "pgd" in options.parts:
        steps = (options.epsilon, options.pgd_steps, options.pgd_step_size)
        attacked["pgd"] = pgd(network, pixels, labels, indices, *steps, options.seed)
    if clean is None:
        clean = network.encoder(images).float()
    return clean, {
        name: int((network(moved).argmax(dim=1) == labels).sum()) for name, moved in attacked.items()
    }


def clean_figures(
    logits: np.ndarray, labels: np.ndarray, parts: Sequence[str] = ("clean", "calibration")
) -> dict[str, Any]:
    """The figures that need the logits (N, K) of the images as they are, and their labels (N,) or (N, K)."""
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise UserError(
            f"the encoder's logits are NaN or infinite for {bad} of {len(logits)} images; its weights or its "
            "normalisation (--mean, --std) are broken"
        )
    if labels.ndim == 2:
        precisions = class_precisions(logits, labels)
        mean = mean_precision(precisions)
        return {"class_ap": precisions} | ({} if mean is None else {"map": mean})
    figures: dict[str, Any] = {}
    if "clean" in parts:
        hits = np.argsort(-logits, axis=1, kind="stable")[:, :5] == labels[:, None]
        figures |= {"top1": 100 * float(hits[:, 0].mean()), "top5": 100 * float(hits.any(axis=1).mean())}
    if "calibration" in parts:
        probs = calibration.probabilities(logits)
        figures |= {
            f"ece{bins}": calibration.expected_calibration_error(probs, labels, bins) for bins in (10, 15)
        }
        figures |= {
            "adaptive_ece15": calibration.adaptive_calibration_error(probs, labels, 15),
            "brier": calibration.brier_score(probs, labels),
            "nll": calibration.negative_log_likelihood(logits, labels),
            "reliability": [asdict(row) for row in calibration.reliability(probs, labels, 15)],
        }
    return figures
