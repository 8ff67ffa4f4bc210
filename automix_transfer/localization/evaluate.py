"""Localization of an encoder, or of a folder of score maps: the pipeline from images to `Results`.

Images are decoded, maps computed and boxes measured at the same time (threads; the heavy parts release Python's lock). What is kept of
an image is a record of fixed size in a file, so memory does not grow with the data set.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from automix_transfer.data.images import read_image
from automix_transfer.data.listing import Listing
from automix_transfer.errors import UserError
from automix_transfer.localization import maps
from automix_transfer.localization.cam import ClassActivation
from automix_transfer.localization.metrics import default_thresholds
from automix_transfer.localization.records import TOP, Records, measure
from automix_transfer.localization.results import Results, summarize
from automix_transfer.localization.targets import Target, boxes_on_map, targets_of
from automix_transfer.models.encoders import EncoderInfo

Progress = Callable[[int, int], None]
Item = tuple[int, tuple[int, int], NDArray, NDArray | None]  # index, image size, score map, predicted classes


def evaluate(encoder: nn.Module, info: EncoderInfo, listing: Listing, *, image_size: int = 224, map_size: int = maps.MAP_SIZE,
             output_stride: int | None = None, cam_class: str = "ground-truth", thresholds: NDArray[np.float64] | None = None,
             threshold: float | None = None, batch_size: int = 32, workers: int | None = None, device: str | torch.device = "cpu",
             save_maps: Path | None = None, partial: Path | None = None, signature: dict[str, Any] | None = None,
             progress: Progress | None = None) -> Results:
    """MaxBoxAcc, MaxBoxAccV2 and what belongs to them, of an encoder's CAMs on the images of ``listing`` that have boxes.

    Args:
        image_size: images are resized straight to this square, as the reference does (no crop), in pixels.
        map_size: side of the square maps that boxes are taken from; the reference's is 224.
        output_stride: see `ClassActivation`.
        cam_class: ``ground-truth`` (the reference), or ``predicted`` for encoders of other classes than the data set's.
        thresholds: (T,) that the maxima are taken over; default 0, 0.001, ... 0.999.
        threshold: fixed threshold of GT-known, top-1 and top-5 localization; default: the best one of MaxBoxAcc.
        workers: threads; default all cores.
        save_maps: folder that every score map is written to as ``<image id>.npy``.
        partial: file of records that an interrupted run is continued from; ``signature`` says what else it depends on.
        progress: called with (images done, images).

    Returns:
        `Results`; ``results.to_dict()`` is what ``out.json`` holds.

    Raises:
        UserError: classes that do not fit, no boxes, an encoder without CAM, an unreadable image.
    """
    if cam_class not in ("ground-truth", "predicted"):
        raise UserError(f"cam_class '{cam_class}' is unknown; choose ground-truth or predicted")
    if cam_class == "ground-truth" and info.num_classes != len(listing.classes):
        raise UserError(f"encoder '{info.name}' was trained for {info.num_classes} classes, but the data set has {len(listing.classes)}; "
                        "give a checkpoint of this data set, or set --cam-class predicted to localize with the class the encoder sees")
    targets = targets_of(listing)
    cam = ClassActivation(encoder.to(device), image_size, output_stride)
    about = {"encoder": info.name, "image_size": image_size, "map_size": map_size, "output_stride": cam.stride,
             "map_cells": list(cam.map_shape), "cam_class": cam_class, "cam_layer": cam.layer}
    identity = {**about, **(signature or {}), "targets": [[t.image_id, t.label, t.boxes] for t in targets]}
    records = Records(len(targets), partial, identity)

    def produce(todo: list[int], pool: ThreadPoolExecutor) -> Iterator[Item]:
        batches = [todo[start:start + batch_size] for start in range(0, len(todo), batch_size)]
        for batch, images, sizes in _prefetch(batches, targets, info, image_size, listing.crop_bottom, pool):
            labels = torch.tensor([targets[i].label for i in batch], device=device)
            activations, logits = cam(images.to(device), None if cam_class == "predicted" else labels)
            top = logits.topk(min(TOP, logits.shape[1])).indices.cpu().numpy() if cam_class == "ground-truth" else None
            for row, (index, size, raw) in enumerate(zip(batch, sizes, activations.cpu().numpy(), strict=True)):
                yield index, size, raw, None if top is None else top[row]

    def finish(index: int, raw: NDArray) -> NDArray:
        values = maps.score_map(raw, map_size)
        if save_maps is not None:
            maps.write_map(save_maps, targets[index].image_id, values)
        return values

    _measure_all(records, targets, produce, finish, map_size, workers, progress)
    thresholds = default_thresholds() if thresholds is None else thresholds
    return summarize(records, targets, listing.classes, map_size, thresholds, threshold, about)


def evaluate_score_maps(root: Path, targets: list[Target], *, map_size: int = maps.MAP_SIZE, raw: bool = False,
                        thresholds: NDArray[np.float64] | None = None, threshold: float | None = None, workers: int | None = None,
                        progress: Progress | None = None) -> Results:
    """`evaluate` for score maps that lie in a folder, ``<root>/<image id>.npy``; what needs predicted classes is left out.

    Args:
        targets: with sizes, as `read_metadata` gives them.
        raw: maps of any size and range, to be resized and normalised; otherwise (map_size, map_size) in [0, 1], taken as they are.

    Raises:
        UserError: missing or malformed maps; those that are missing are all counted before the first is evaluated.
    """
    if not root.is_dir():
        raise UserError(f"score map folder {root} does not exist; give the folder that holds <image id>.npy")
    absent = [t.image_id for t in targets if not maps.map_path(root, t.image_id).is_file()]
    if absent:
        raise UserError(f"{root} lacks the score maps of {len(absent)} of {len(targets)} images, e.g. {absent[0]}.npy; "
                        "write them, or correct --metadata")
    for target in targets:
        maps.check_header(root, target.image_id, map_size, raw)
    records = Records(len(targets), None, {})

    def produce(todo: list[int], _pool: ThreadPoolExecutor) -> Iterator[Item]:
        for index in todo:
            size = targets[index].size
            assert size is not None
            yield index, size, np.empty(0), None

    def finish(index: int, _raw: NDArray) -> NDArray:
        return maps.read_map(root, targets[index].image_id, map_size, raw)

    _measure_all(records, targets, produce, finish, map_size, workers, progress)
    about = {"scoremaps": str(root), "map_size": map_size, "raw_maps": raw}
    classes = [str(label) for label in range(max(t.label for t in targets) + 1)]
    thresholds = default_thresholds() if thresholds is None else thresholds
    return summarize(records, targets, classes, map_size, thresholds, threshold, about)


def _measure_all(records: Records, targets: list[Target], produce: Callable[[list[int], ThreadPoolExecutor], Iterable[Item]],
                 finish: Callable[[int, NDArray], NDArray], map_size: int, workers: int | None, progress: Progress | None) -> None:
    """Run ``finish`` and `measure` on all cores behind ``produce``; a bounded number of maps waits."""
    todo = records.missing()
    threads = workers or len(os.sched_getaffinity(0))
    done = len(records) - len(todo)

    def work(index: int, size: tuple[int, int], raw: NDArray) -> dict[str, Any]:
        return measure(finish(index, raw), boxes_on_map(targets[index], size, map_size))

    waiting: deque[tuple[int, tuple[int, int], NDArray | None, Future]] = deque()
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(threads) as readers:
        def collect() -> None:
            nonlocal done
            index, size, top, future = waiting.popleft()
            records.put(index, size, top, future.result())
            done += 1
            if progress is not None:
                progress(done, len(records))

        try:
            for index, size, raw, top in produce(todo, readers):
                waiting.append((index, size, top, pool.submit(work, index, size, raw)))
                while len(waiting) > 8 * threads:
                    collect()
            while waiting:
                collect()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)
            raise


def _prefetch(batches: list[list[int]], targets: list[Target], info: EncoderInfo, image_size: int, crop_bottom: int,
              pool: ThreadPoolExecutor) -> Iterator[tuple[list[int], torch.Tensor, list[tuple[int, int]]]]:
    """Batches of normalised images (N, 3, S, S) and their original sizes; the next two batches are decoded meanwhile."""
    mean, std = np.array(info.mean, dtype=np.float32), np.array(info.std, dtype=np.float32)

    def load(index: int) -> tuple[torch.Tensor, tuple[int, int]]:
        path = targets[index].path
        assert path is not None
        image = read_image(path)
        if crop_bottom:
            image = image.crop((0, 0, image.width, image.height - crop_bottom))
        resized = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
        pixels = (np.asarray(resized, dtype=np.float32) / 255 - mean) / std
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), image.size

    ahead: deque[tuple[list[int], list[Future]]] = deque()
    queue = iter(batches)
    while True:
        while len(ahead) < 2 and (batch := next(queue, None)) is not None:
            ahead.append((batch, [pool.submit(load, index) for index in batch]))
        if not ahead:
            return
        batch, futures = ahead.popleft()
        loaded = [future.result() for future in futures]
        yield batch, torch.stack([image for image, _ in loaded]), [size for _, size in loaded]


def print_progress(every: float = 5.0) -> Progress:
    """A progress function that writes one line to stderr every few seconds: images, images a second, time left."""
    start, last, first = time.monotonic(), time.monotonic(), -1

    def show(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        if first < 0:
            first = done - 1  # images that an earlier run had done already do not count for the rate
        if now - last >= every:
            last = now
            rate = (done - first) / max(now - start, 1e-9)
            left = f"{(total - done) / rate:.0f} s left" if done - first > 1 else "estimating"
            print(f"localization: {done:,} of {total:,} images, {rate:.1f} images/s, {left}", file=sys.stderr, flush=True)

    return show
