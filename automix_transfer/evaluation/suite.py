"""What any classifier is worth on a folder of images: the parts of the suite, and their figures.

One pass over the images: each is read once and, as it is, classified once; FGSM takes its gradient from that
same pass. Several processes share the batches out; figures are made of all of them, in the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.evaluation import calibration
from automix_transfer.evaluation.attacks import OfPixels, gradient_of, pgd, signed_step
from automix_transfer.evaluation.confusion import confusion_figures, shot_figures
from automix_transfer.evaluation.corruptions import SEVERITIES
from automix_transfer.evaluation.corruptions.corrupted import corrupted_hits, summarize
from automix_transfer.evaluation.suite_options import SuiteOptions, check_options
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.training.average_precision import class_precisions, mean_precision
from automix_transfer.training.sharing import ALONE, Team


@dataclass(frozen=True)
class BatchSeen:
    """What a batch of N images gives: its logits, and how many each attack and corruption leaves recognised.

    Attributes:
        logits, labels, indices: (N, K), (N,) or (N, K), and (N,).
        attacked: by the attack's name.
        corrupted: (corruptions, severities).
    """

    logits: NDArray[np.float32]
    labels: NDArray[Any]
    indices: NDArray[np.int64]
    attacked: dict[str, int]
    corrupted: NDArray[np.int64]


def evaluate_suite(
    encoder: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    mean: Sequence[float],
    std: Sequence[float],
    options: SuiteOptions | None = None,
    progress: Callable[[int], None] = lambda done: None,
    train_counts: Sequence[int] = (),
    team: Team = ALONE,
) -> dict[str, Any]:
    """Every figure of the parts asked for, in percent unless said otherwise, over all images of ``loader``.

    ``clean``: top1, top5; of images with several labels map and class_ap, a list. ``calibration``: ece10,
    ece15, adaptive_ece15, brier (0 to 2), nll (nats) and the 15 reliability bins. ``fgsm``, ``pgd``: the
    error, 100 - top-1, on attacked images. ``corruption``: top-1 under each corruption at each severity, made
    here, and its means. ``confusion``: see `confusion_figures`. ``shots``: see `shot_figures`. And
    ``images``: how many.

    Args:
        loader: (images (N, 3, H, W) normalised by mean and std, labels (N,), indices); for ``clean`` alone
            labels may be (N, K). Of several processes the batches that are dealt to this one.
        progress: called with the number of images done after each batch.
        train_counts: for ``shots``: (K,) training images of each class.
        team: the first process gets the figures of all, the others none.

    Raises:
        UserError: no part, an unknown one, no image, or a logit that is not finite.
    """
    options = options or SuiteOptions()
    check_options(options)
    done = 0

    def count(batch: BatchSeen) -> None:
        nonlocal done
        done += len(batch.labels)
        progress(done)

    seen = team.in_order(see_batches(encoder, loader, mean, std, options), count)
    if not team.main:
        return {}
    if not done:
        raise UserError("there is no image to evaluate")
    logits_NK, labels_N, indices_N = (
        np.concatenate([getattr(batch, name) for batch in seen]) for name in ("logits", "labels", "indices")
    )
    figures = {"images": done, **clean_figures(logits_NK, labels_N, options.parts)}
    for name in seen[0].attacked:
        figures[f"{name}_error"] = 100 - 100 * sum(batch.attacked[name] for batch in seen) / done
    if "corruption" in options.parts:
        shares = 100 * np.sum([batch.corrupted for batch in seen], axis=0) / done
        accuracies = dict(zip(options.corruptions, shares.tolist(), strict=True))
        figures |= summarize(accuracies, "generated", done)
    if "confusion" in options.parts:
        probs_NK = calibration.probabilities(logits_NK)
        figures["confusion"] = confusion_figures(probs_NK, labels_N, indices_N)
    if "shots" in options.parts:
        figures |= shot_figures(logits_NK.argmax(axis=1), labels_N, train_counts)
    return figures


def see_batches(
    encoder: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    mean: Sequence[float],
    std: Sequence[float],
    options: SuiteOptions,
) -> Iterator[BatchSeen]:
    """What each batch of ``loader`` gives, in eval mode; see `evaluate_suite`."""
    device = next(encoder.parameters()).device
    network = OfPixels(encoder, mean, std).to(device)
    names = options.corruptions if "corruption" in options.parts else ()
    with eval_mode(encoder), torch.no_grad():
        for images, labels, indices in loader:
            images, labels = images.to(device), labels.to(device)
            clean, attacked = _attacks(network, images, labels, indices, options)
            corrupted = np.zeros((0, len(SEVERITIES)), dtype=np.int64)
            if names:
                pixels = network.pixels_of(images)
                corrupted = corrupted_hits(network, pixels, labels, indices, names, options.seed)
            logits, places = clean.cpu().numpy(), np.asarray(indices)
            yield BatchSeen(logits, labels.cpu().numpy(), places, attacked, corrupted)


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
