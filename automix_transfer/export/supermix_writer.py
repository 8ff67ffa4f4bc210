"""Write a data set of SuperMix images from a trained network: PNGs and soft labels, batch by batch.

Each batch draws from (seed, batch), and its part of the labels is written last. So a command that was
interrupted and started again leaves finished batches alone and ends with the same files.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automix_transfer.data.cache import mark
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.layouts.mixed_offline import (
    ABOUT,
    FORMAT,
    IMAGES,
    SOFT_LABELS,
    pictures,
    read_mixed,
)
from automix_transfer.data.splits import train_dataset
from automix_transfer.data.transforms import eval_transform
from automix_transfer.errors import UserError
from automix_transfer.io import atomic_write, load_npy, read_json, write_json
from automix_transfer.mixing import load_options
from automix_transfer.mixing.losses import PLAIN
from automix_transfer.mixing.methods.supermix import SuperMix
from automix_transfer.models.weights import load_encoder
from automix_transfer.models.weights_file import sha256_of_weights
from automix_transfer.owner import LOCK
from automix_transfer.rng import derive_generator
from automix_transfer.training.joining import start, stop
from automix_transfer.training.record.mixed_grid import save_png
from automix_transfer.training.settings import Experiment

PLAN = "plan.json"


def write_supermix(
    experiment: Experiment,
    teacher_file: str,
    folder: Path,
    count: int = 0,
    teacher_name: str = "",
    max_batches: int | None = None,
) -> Path | None:
    """Mix images of the training split of ``experiment.data`` into ``folder``.

    Args:
        count: images to write; 0: as many as one pass over the data gives.
        max_batches: stop after so many batches, unfinished (for tests); the return value is then None.

    Raises:
        UserError: bad settings, a teacher of other classes, or a folder that holds another data set.
    """
    given = {key: value for key, value in experiment.method.items() if key != "name"}
    options = load_options("supermix", given if experiment.method["name"] == "supermix" else {})
    dataset = train_dataset(experiment.data, experiment.seed)
    dataset = ClassificationDataset(dataset.listing, eval_transform(experiment.data), experiment.seed)
    teacher, info = load_encoder(teacher_file, teacher_name or None, num_classes=len(dataset.classes))
    size = min(experiment.train.batch_size, len(dataset))
    data = asdict(experiment.data)
    plan = {
        "format": FORMAT,
        "classes": list(dataset.classes),
        # the loss is of training
        "options": {key: value for key, value in asdict(options).items() if not hasattr(PLAIN, key)},
        "teacher": sha256_of_weights(teacher_file),
        "seed": experiment.seed,
        "count": count,
        "batch_size": size,
        "images": len(dataset),
        "files": mark(f"{dataset.listing.labels}", dataset.listing.files),
        "data": {key: value for key, value in data.items() if key not in ("workers", "mixed", "classes")},
    }
    prepare(folder, plan)
    if (folder / ABOUT).exists():
        files, _ = read_mixed(folder, dataset.classes)
        print(f"{folder} is finished: {len(files)} mixed images", flush=True)
        return folder
    world = start(experiment.train.device, experiment.train.wait_minutes)
    try:
        method = SuperMix(teacher.requires_grad_(False).to(world.device), options)
        statistics = (
            torch.tensor(values, device=world.device).view(-1, 1, 1)
            for values in (data["mean"], data["std"], info.mean, info.std)
        )
        mixer = Mixer(dataset, method, size, experiment.seed, *statistics)
        return finish(folder, plan, count) if write_batches(mixer, folder, count, max_batches) else None
    finally:
        stop(world)


@dataclass
class Mixer:
    """Batches of a data set, mixed as a teacher judges them.

    Attributes:
        method: around the teacher.
        size: images a batch.
        mean, std: what the data set's images are normalised with, (3, 1, 1).
        teacher_mean, teacher_std: what the teacher's inputs are normalised with, (3, 1, 1).
    """

    dataset: ClassificationDataset
    method: SuperMix
    size: int
    seed: int
    mean: Tensor
    std: Tensor
    teacher_mean: Tensor
    teacher_std: Tensor

    @property
    def batches_a_pass(self) -> int:
        """Batches of one pass over the data."""
        return max(len(self.dataset) // self.size, 1)

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """What succeeded of batch ``number``: (M, H, W, 3) uint8, and soft labels (M, classes) float32."""
        images = self.images(number).to(self.mean.device)
        images = (images * self.std + self.mean - self.teacher_mean) / self.teacher_std
        rng = derive_generator(self.seed, "supermix", number)
        draw = self.method.draw(len(images), (images.shape[2], images.shape[3]), rng)
        mixed = self.method.mix(images, torch.empty(0), draw)
        assert mixed.targets is not None
        good = mixed.success.nonzero().flatten()
        pixels = (mixed.images[good] * self.teacher_std + self.teacher_mean).clamp(0, 1) * 255
        targets = mixed.targets[good].float().cpu().numpy()
        return pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy(), targets

    def images(self, number: int) -> Tensor:
        """Batch ``number`` of an endless series of shuffled passes: (size, 3, H, W)."""
        a_pass, at = divmod(number, self.batches_a_pass)
        rng = derive_generator(self.seed, "supermix order", a_pass)
        order = torch.randperm(len(self.dataset), generator=rng)[at * self.size : (at + 1) * self.size]
        return torch.stack([self.dataset[int(index)][0] for index in order])


def write_batches(mixer: Mixer, folder: Path, count: int, max_batches: int | None) -> bool:
    """Write the batches that ``folder`` lacks; False if ``max_batches`` of them were not enough.

    Raises:
        UserError: three passes over the data gave no image.
    """
    made, begun = kept(folder), time.monotonic()
    batches_before, images_before = len(made), sum(made.values())
    total = count or mixer.batches_a_pass * mixer.size
    number = 0
    while sum(made.values()) < count if count else len(made) < mixer.batches_a_pass:
        if number not in made:
            if max_batches is not None and len(made) - batches_before >= max_batches:
                return False
            images, labels = mixer.batch(number)
            write_batch(folder, number, images, labels)
            made[number] = len(images)
            done = sum(made.values())
            left = (time.monotonic() - begun) / max(done - images_before, 1) * max(total - done, 0)
            print(
                f"batch {number + 1}: {len(images)} of {mixer.size} mixed; {done:,} of "
                f"{'' if count else 'at most '}{total:,} images, about {left / 60:.1f} min left",
                flush=True,
            )
        number += 1
        if number >= 3 * mixer.batches_a_pass + 10 and not any(made.values()):
            raise UserError(
                f"the teacher recognised no mixed image in {number} batches; give a better --teacher, or "
                "raise method.iterations"
            )
    return True


def write_batch(folder: Path, number: int, images: np.ndarray, labels: np.ndarray) -> None:
    """PNGs first, then the part of the labels that says that they are there."""
    for at, picture in enumerate(images):
        save_png(folder / IMAGES / f"{number:06d}_{at:04d}.png", picture)
    buffer = io.BytesIO()
    np.save(buffer, labels)
    atomic_write(folder / "parts" / f"{number:06d}.npy", lambda file: file.write(buffer.getvalue()))


def kept(folder: Path) -> dict[int, int]:
    """Finished batches whose images are all there, and how many each gave."""
    there = pictures(folder)
    counts = {part.stem: len(_part(part)) for part in _parts(folder)}
    return {
        int(stem): count
        for stem, count in counts.items()
        if there.issuperset(f"{stem}_{at:04d}.png" for at in range(count))
    }


def _parts(folder: Path) -> list[Path]:
    parts = sorted((folder / "parts").glob("*.npy"))
    if odd := [part for part in parts if not re.fullmatch("[0-9]{6,9}", part.stem)]:
        raise UserError(f"{odd[0]} is no part of a mixed data set; remove it, or choose another --output")
    return parts


def _part(file: Path, classes: int = 0) -> np.ndarray:
    """(M, K) soft labels; of ``classes``, where the number is known."""
    labels = load_npy(file, "remove it, and its images are mixed again", lazy=True)
    if labels.ndim != 2 or labels.dtype != np.float32 or labels.shape[1] != (classes or labels.shape[1]):
        raise UserError(
            f"{file} is {labels.dtype} {labels.shape}, no soft labels; remove it, and its images are mixed "
            "again"
        )
    return labels


def finish(folder: Path, plan: dict[str, Any], count: int) -> Path:
    """One array of all labels, and the file that says that the data set is complete."""
    parts = {part.stem: _part(part, len(plan["classes"])) for part in _parts(folder)}
    labels = np.concatenate(list(parts.values()))
    files = [f"{stem}_{at:04d}.png" for stem, part in parts.items() for at in range(len(part))]
    if count:
        labels, files = labels[:count], files[:count]
    buffer = io.BytesIO()
    np.save(buffer, labels.astype(np.float32))
    atomic_write(folder / SOFT_LABELS, lambda file: file.write(buffer.getvalue()))
    write_json(folder / ABOUT, {**plan, "files": files})
    shutil.rmtree(folder / "parts")
    print(
        f"{len(files):,} mixed images in {folder}; train on them with data.mixed={folder} "
        "method.name=supermix",
        flush=True,
    )
    return folder


def prepare(folder: Path, plan: dict[str, Any]) -> None:
    """A new folder, or one that the same command began."""
    plan = json.loads(json.dumps(plan))
    if (folder / PLAN).exists():
        found = read_json(folder / PLAN)
        if not isinstance(found, dict):
            raise UserError(f"{folder / PLAN} is no plan of a mixed data set; choose another --output")
        before = {"files": plan["files"], **found}  # version 0.1 did not write it
        different = next((key for key in plan if before.get(key) != plan[key]), None)
        if different:
            raise UserError(
                f"{folder} was begun with another {different}; give the same settings to go on, or another "
                "--output"
            )
        return
    if folder.exists() and any(entry.name != LOCK for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no mixed data set; choose another --output")
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    write_json(folder / PLAN, plan)
