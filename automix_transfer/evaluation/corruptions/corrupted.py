"""Accuracy under corruption (Table 6): on the released sets, or on corruptions made here.

CIFAR-10-C and CIFAR-100-C: ``DIR/<name>.npy`` (50000, 32, 32, 3) uint8, five severities of 10,000 in test
order, and ``labels.npy``. ImageNet-C: ``DIR/<name>/<severity>/<class>/*.JPEG``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automix_transfer.data.layouts.walking import subfolders
from automix_transfer.data.loader import dealt_out, eval_loader
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError, few
from automix_transfer.evaluation.corruptions import NAMES, SEVERITIES, STANDARD, corrupt
from automix_transfer.io import load_npy
from automix_transfer.text_files import same_names
from automix_transfer.training.distributed import World
from automix_transfer.training.sharing import ALONE, Team

LABELS = "labels.npy"  #: the file by which a set is CIFAR-C
Accuracies = dict[str, list[float]]  #: name -> top-1 in percent at severities 1 to 5


def corrupted_hits(
    network: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    indices: Iterable[int],
    names: Sequence[str],
    seed: int,
) -> NDArray[np.int64]:
    """(names, severities) images of pixels (N, 3, H, W) in [0, 1] still recognised when corrupted."""
    images = (pixels * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    places = [int(index) for index in indices]
    hits = np.zeros((len(names), len(SEVERITIES)), dtype=np.int64)
    for row, name in enumerate(names):
        for column, severity in enumerate(SEVERITIES):
            found = network(to_pixels(corrupt(images, name, severity, places, seed), pixels.device)).argmax(
                dim=1
            )
            hits[row, column] = int((found == labels).sum())
    return hits


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255


def summarize(accuracies: Accuracies, made: str, images: int) -> dict[str, Any]:
    """The table, how it was made, of how many images each, and its means.

    Over the benchmark's 15 corruptions and over the paper's 19, where all of them are there.
    """
    figures: dict[str, Any] = {"corruption": accuracies, "corruption_made": made, "corruption_images": images}
    for names in (STANDARD, NAMES):
        if all(name in accuracies for name in names):
            figures[f"corruption_top1_{len(names)}"] = float(np.mean([accuracies[name] for name in names]))
    return figures


def relative_error(
    accuracies: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]]
) -> float:
    """mCE in percent: the mean over corruptions of Σ errors over severities, relative to the baseline's.

    Raises:
        UserError: the baseline lacks a corruption, or makes no error under one.
    """
    ratios = []
    for name, values in accuracies.items():
        check_baseline(baseline, [name], len(values))
        ratios.append(sum(100 - value for value in values) / sum(100 - value for value in baseline[name]))
    return 100 * float(np.mean(ratios))


def check_baseline(
    baseline: Mapping[str, Any], names: Iterable[str], severities: int = len(SEVERITIES)
) -> None:
    """Raise a `UserError` unless the baseline makes errors under every corruption of ``names``."""
    for name in names:
        theirs = baseline.get(name)
        values = theirs if isinstance(theirs, list | tuple) else []
        # JSON can hold NaN, which is in no range
        percent = [value for value in values if isinstance(value, int | float) and 0 <= value <= 100]
        if len(values) != severities or percent != values:
            raise UserError(
                f"the baseline has no accuracies under '{name}' at {severities} severities; measure it with "
                "the same suite"
            )
        if min(percent) == 100:
            raise UserError(
                f"the baseline makes no error under '{name}', so nothing is relative to it; choose another"
            )


def released_accuracies(
    network: nn.Module,
    folder: Path,
    config: DataConfig,
    classes: Sequence[str],
    batch_size: int,
    progress: Callable[[str], None] = lambda line: None,
    team: Team = ALONE,
) -> tuple[Accuracies, int]:
    """Accuracies on every corruption of the released set in ``folder``, and the fewest images of one.

    Of several processes the first gets them.

    Raises:
        UserError: as `released_names`; classes of ImageNet-C that are not those of the clean images.
    """
    device = next(network.parameters()).device
    batches_of = _cifar_c if (folder / LABELS).is_file() else _imagenet_c

    @torch.no_grad()
    def own() -> Iterator[tuple[str, int, int]]:
        for name, batches in batches_of(folder, config, classes, batch_size, team.world):
            hits, count = 0, 0
            for pixels, labels in batches:
                hits += int((network(pixels.to(device)).argmax(dim=1).cpu() == labels).sum())
                count += len(labels)
            yield name, hits, count

    accuracies: Accuracies = {}
    counts, waiting = [], dict[int, list[tuple[int, int]]]()
    for number, (name, *seen) in team.pieces(own()):
        shares = waiting.setdefault(number // team.world.size, [])
        shares.append((seen[0], seen[1]))
        if len(shares) == team.world.size:  # a corruption of a severity, all its images
            hits, images = (sum(values) for values in zip(*shares, strict=True))
            accuracies.setdefault(name, []).append(100 * hits / max(images, 1))
            counts.append(images)
            progress(f"{name}, severity {len(accuracies[name])}: {accuracies[name][-1]:.2f} %")
    left = [place.name for place in subfolders(folder) if (place / "1").is_dir() and place.name not in NAMES]
    if left and counts:
        progress(f"note: {few(left)} in {folder} are no corruptions of the benchmark and are left out")
    if len(set(counts)) > 1:
        progress(f"note: the corruptions have {min(counts):,} to {max(counts):,} images each")
    return accuracies, min(counts, default=0)


def released_names(folder: Path, config: DataConfig, classes: Sequence[str]) -> list[str]:
    """The corruptions of the released set in ``folder``, in the order of `NAMES`; classifies no image.

    Raises:
        UserError: no such set; a file of CIFAR-C that is damaged, or has other classes or images of another
            size than the network is given.
    """
    if (folder / LABELS).is_file():
        return list(_cifar_files(folder, config, classes)[1])
    return _imagenet_names(folder)


Batches = Iterator[tuple[Tensor, Tensor]]


def _cifar_files(
    folder: Path, config: DataConfig, classes: Sequence[str]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The labels (5N,) and each corruption's images (5N, H, W, 3), checked against the network's input."""
    labels = _array(folder / LABELS, 1)
    names = [name for name in NAMES if (folder / f"{name}.npy").is_file()]
    if not names:
        raise UserError(
            f"{folder} has labels.npy but none of {', '.join(NAMES[:3])}, ... as .npy; give the folder of "
            "CIFAR-10-C or CIFAR-100-C"
        )
    files = {name: _array(folder / f"{name}.npy", 4) for name in names}
    for name, images in files.items():
        if (
            images.dtype != np.uint8
            or len(images) != len(labels)
            or images.shape[3] != 3
            or len(images) % len(SEVERITIES)
        ):
            raise UserError(
                f"{folder / name}.npy is {images.dtype} {images.shape}; expected uint8 ({len(labels)}, H, W, "
                "3), five severities one after the other; restore it from the released archive"
            )
        side = config.test_size or config.image_size
        if images.shape[1:3] != (side, side):  # they are classified as they are released
            raise UserError(
                f"{folder / name}.npy holds images of {images.shape[2]} x {images.shape[1]} pixels, which "
                f"are not resized, but the network is given {side}; give --image-size {images.shape[1]}, or "
                "leave --corrupted out"
            )
    if not len(labels) or (labels.min(), labels.max()) != (0, len(classes) - 1):
        found = f"labels {labels.min()} to {labels.max()}" if len(labels) else "no label"
        raise UserError(
            f"{folder / LABELS} has {found}, but the network has {len(classes)} classes, 0 to "
            f"{len(classes) - 1}; give the released set of the network's own data set"
        )
    return labels, files


def _cifar_c(
    folder: Path, config: DataConfig, classes: Sequence[str], batch_size: int, world: World
) -> Iterator[tuple[str, Batches]]:
    labels, files = _cifar_files(folder, config, classes)
    share = len(labels) // len(SEVERITIES)
    for name, images in files.items():
        for severity in SEVERITIES:
            places = range((severity - 1) * share, severity * share)
            own = dealt_out(places, batch_size, world.rank, world.size)
            yield name, _slices(images, labels, own, batch_size)


def _slices(images: NDArray[Any], labels: NDArray[Any], places: list[int], batch_size: int) -> Batches:
    for at in range(0, len(places), batch_size):
        part = slice(places[at], places[min(at + batch_size, len(places)) - 1] + 1)
        pixels = to_pixels(np.array(images[part]), torch.device("cpu"))
        yield pixels, torch.from_numpy(labels[part].astype(np.int64))


def _array(file: Path, dimensions: int) -> NDArray[Any]:
    array = load_npy(file, "restore it from the released archive", lazy=True)
    if array.ndim != dimensions or array.dtype.kind not in "iu":
        raise UserError(
            f"{file} is {array.dtype} {array.shape}; expected whole numbers in {dimensions} dimension(s)"
        )
    return array


def _imagenet_names(folder: Path) -> list[str]:
    places = _imagenet_places(folder)
    if not places:
        raise UserError(
            f"{folder} holds no corruption: expected <name>.npy and labels.npy (CIFAR-C), or "
            "<name>/<severity 1 to 5>/<class>/ (ImageNet-C)"
        )
    parts = [place / str(severity) for place in places.values() for severity in SEVERITIES]
    if missing := [part for part in parts if not part.is_dir()]:
        raise UserError(
            f"{missing[0]} is no folder; a corruption has the severities 1 to 5: unpack it again, or take "
            f"{missing[0].parent} away"
        )
    return list(places)


def _imagenet_places(folder: Path) -> dict[str, Path]:
    """Corruption -> its folder, in ``folder`` or, where each archive has a folder of its own, one below."""
    inside = subfolders(folder)
    found = {place.name: place for above in inside for place in subfolders(above) if place.name in NAMES}
    found |= {place.name: place for place in inside if place.name in NAMES}
    return {name: found[name] for name in NAMES if name in found}


def _imagenet_c(
    folder: Path, config: DataConfig, classes: Sequence[str], batch_size: int, world: World
) -> Iterator[tuple[str, Batches]]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    for name, root in _imagenet_places(folder).items():
        for severity in SEVERITIES:
            where = replace(
                config,
                dataset="imagefolder",
                root=str(root),
                train_split=str(severity),
                val_split=str(severity),
                test_crop_ratio=1.0,  # its images are cut already
            )
            dataset = eval_dataset(where, known=classes)
            if not same_names(dataset.classes, classes):
                raise UserError(
                    f"{root / str(severity)} has other classes ({len(dataset.classes)}) than the "
                    f"clean images ({len(classes)}); restore it from the released archive"
                )
            place = world.rank, world.size
            loader = eval_loader(dataset, batch_size, *place, workers=config.workers, whole=True)
            yield name, ((images * std + mean, labels) for images, labels, _ in loader)
