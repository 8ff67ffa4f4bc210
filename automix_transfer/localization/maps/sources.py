"""Where score maps come from: an encoder's class maps, or a folder of files."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from automix_transfer.data.cache import stamp
from automix_transfer.data.images import read_image
from automix_transfer.errors import UserError
from automix_transfer.localization.maps import score_maps as maps
from automix_transfer.localization.maps.cam import ClassActivation
from automix_transfer.localization.records import TOP
from automix_transfer.localization.targets import Target, TargetSet
from automix_transfer.models.encoders import EncoderInfo

Item = tuple[int, NDArray, NDArray | None]  # index, raw map, predicted classes
CAM_CLASSES = ("ground-truth", "predicted")


class EncoderMaps:
    """Class maps of an encoder on images.

    Args:
        image_size: images are resized straight to this square, as the reference does (no crop), in pixels.
        output_stride, method, layer: see `ClassActivation`.
        cam_class: ``ground-truth`` (the reference), or ``predicted`` for encoders of other classes than the
            data set's.

    Attributes:
        seconds: wall time of the forward passes so far.

    Raises:
        UserError: as `ClassActivation`; an unknown ``cam_class``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        info: EncoderInfo,
        *,
        image_size: int = 224,
        map_size: int = maps.MAP_SIZE,
        output_stride: int | None = None,
        cam_class: str = "ground-truth",
        method: str = "cam",
        layer: str | None = None,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        if cam_class not in CAM_CLASSES:
            raise UserError(f"cam_class '{cam_class}' is unknown; choose {' or '.join(CAM_CLASSES)}")
        self.info, self.image_size, self.map_size = info, image_size, map_size
        self.batch_size, self.device = batch_size, device
        self.predicted = cam_class == "predicted"
        # Channels last: a third faster on CPUs for networks of depthwise convolutions (tf_efficientnet_lite0:
        # 14.5 for 10.6 images/s); torch's stubs lack it
        encoder = encoder.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.activation = ClassActivation(encoder, image_size, output_stride, method, layer)
        self.about: dict[str, Any] = {
            "encoder": info.name,
            "image_size": image_size,
            "map_size": map_size,
            "output_stride": self.activation.stride,
            "map_cells": list(self.activation.map_shape),
            "map_method": method,
            "cam_class": cam_class,
            "cam_layer": self.activation.layer,
        }
        self.seconds = 0.0

    def notes(self, _target_set: TargetSet) -> list[str]:
        """What is worth saying."""
        return []

    def check(self, target_set: TargetSet) -> dict[str, Any]:
        """What the maps depend on besides ``about``; raises `UserError` if the classes do not fit."""
        classes, labels = len(target_set.classes), self.info.num_classes
        fits = labels == classes if target_set.known_classes else labels >= classes
        if not self.predicted and not fits:
            raise UserError(
                f"encoder '{self.info.name}' was trained for {labels} classes, but the data set has "
                f"{classes}; give a checkpoint of this data set, or set --cam-class predicted to localize "
                "with the class the encoder sees"
            )
        return {}

    def produce(self, target_set: TargetSet, todo: list[int], pool: ThreadPoolExecutor) -> Iterator[Item]:
        """Raw maps and first classes (None where the encoder's are others) of the images ``todo``."""
        targets = target_set.targets
        batches = [todo[start : start + self.batch_size] for start in range(0, len(todo), self.batch_size)]
        for batch, images in _prefetch(
            batches, lambda i: self._read(targets[i], target_set.crop_bottom), pool
        ):
            start = time.perf_counter()
            labels = torch.tensor([targets[i].label for i in batch], device=self.device)
            activations, logits = self.activation(self._on_device(images), None if self.predicted else labels)
            top = None if self.predicted else logits.topk(min(TOP, logits.shape[1])).indices.cpu().numpy()
            raw = activations.cpu().numpy()
            self.seconds += time.perf_counter() - start
            for row, index in enumerate(batch):
                yield index, raw[row], None if top is None else top[row]

    def finish(self, _target: Target, raw: NDArray) -> NDArray:
        """The score map of a raw one; runs on any core."""
        return maps.score_map(raw, self.map_size)

    def score_map(self, target_set: TargetSet, index: int) -> NDArray:
        """One image's score map, computed again."""
        target = target_set.targets[index]
        labels = None if self.predicted else torch.tensor([target.label], device=self.device)
        raw, _ = self.activation(self._on_device(self._read(target, target_set.crop_bottom)[None]), labels)
        return self.finish(target, raw[0].cpu().numpy())

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(device=self.device, memory_format=torch.channels_last)

    def _read(self, target: Target, crop_bottom: int) -> torch.Tensor:
        image = read_target(target, crop_bottom).resize(
            (self.image_size, self.image_size), Image.Resampling.BILINEAR
        )
        mean, std = np.array(self.info.mean, dtype=np.float32), np.array(self.info.std, dtype=np.float32)
        return torch.from_numpy(
            ((np.asarray(image, dtype=np.float32) / 255 - mean) / std).transpose(2, 0, 1).copy()
        )


class FolderMaps:
    """Score maps that lie in a folder, ``<root>/<image id>.npy``.

    Args:
        raw: maps of any size and range, to be resized and normalised; otherwise (map_size, map_size) in [0,
            1], taken as they are.
    """

    seconds = 0.0
    batch_size = 1  # maps are read one by one

    def __init__(self, root: Path, map_size: int = maps.MAP_SIZE, raw: bool = False) -> None:
        self.root, self.map_size, self.raw = root, map_size, raw
        self.about: dict[str, Any] = {"scoremaps": str(root), "map_size": map_size, "raw_maps": raw}

    def check(self, target_set: TargetSet) -> dict[str, Any]:
        """Sizes and times of all files, which are all looked at; raises `UserError` where one does not do."""
        if not self.root.is_dir():
            raise UserError(
                f"score map folder {self.root} does not exist; give the folder that holds <image id>.npy"
            )
        paths = [maps.map_path(self.root, target.image_id) for target in target_set.targets]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            raise UserError(
                f"{self.root} lacks the score maps of {len(absent)} of {len(paths)} images, e.g. "
                f"{absent[0].relative_to(self.root)}; write them, or correct --metadata"
            )
        for target in target_set.targets:
            maps.check_header(self.root, target.image_id, self.map_size, self.raw)
        return {"files": [stamp(path) for path in paths]}

    def notes(self, target_set: TargetSet) -> list[str]:
        """How many maps of other images there are: another split's, or a sign of the wrong metadata."""
        wanted = {maps.map_path(self.root, target.image_id) for target in target_set.targets}
        others = sum(path not in wanted for path in self.root.rglob("*.npy"))
        about = f"{others:,} score maps in {self.root} are of images that {target_set.name} does not name"
        return [about] if others else []

    def produce(self, _target_set: TargetSet, todo: list[int], _pool: ThreadPoolExecutor) -> Iterator[Item]:
        """Nothing yet: files are read where they are measured."""
        for index in todo:
            yield index, np.empty(0), None

    def finish(self, target: Target, _raw: NDArray) -> NDArray:
        """The score map of an image; runs on any core."""
        return maps.read_map(self.root, target.image_id, self.map_size, self.raw)

    def score_map(self, target_set: TargetSet, index: int) -> NDArray:
        """One image's score map."""
        return self.finish(target_set.targets[index], np.empty(0))


def read_target(target: Target, crop_bottom: int = 0) -> Image.Image:
    """An image of a target set, RGB; its rotation flag is left alone, as the reference does."""
    assert target.path is not None
    image = read_image(target.path)
    return image.crop((0, 0, image.width, image.height - crop_bottom)) if crop_bottom else image


def _prefetch(
    batches: list[list[int]], read: Any, pool: ThreadPoolExecutor
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Batches of normalised images (N, 3, S, S); the next two batches are decoded meanwhile."""
    ahead: deque[tuple[list[int], list[Future]]] = deque()
    queue = iter(batches)
    while True:
        while len(ahead) < 2 and (batch := next(queue, None)) is not None:
            ahead.append((batch, [pool.submit(read, index) for index in batch]))
        if not ahead:
            return
        batch, futures = ahead.popleft()
        yield batch, torch.stack([future.result() for future in futures])
