"""Parts of benchmarks/gpu.py about speed: our loop beside timm's, a detector's iteration, localization."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from gpu_loops import PHOTO_CLASSES, begin
from gpu_setting import Found, Setting, over, table
from step_time import synchronize
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2

from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.training.loop import fit
from automix_transfer.training.setup.run_state import Run
from automix_transfer.training.validation import autocast


def loader(setting: Setting, until: float) -> Found:
    """Images a second of our loop and of timm's loader, network and optimizer in a plain one, by turns."""
    workers = setting.workers or min(len(os.sched_getaffinity(0)), 16)
    cuda = setting.device.startswith("cuda")
    rounds = max(setting.rounds // 2, 1)
    run = begin(
        setting,
        "loader",
        *(
            f"data.root={setting.data / 'photos'}",
            f"data.image_size={setting.size}",
            f"data.workers={workers}",
        ),
        *(f"encoder.name={setting.encoder}", f"encoder.stem={setting.stem}", f"train.channels_last={cuda}"),
        *(f"train.precision={'bf16' if cuda else 'fp32'}", f"train.batch_size={setting.batch}"),
        *(f"train.epochs={rounds + 1}", f"train.eval_every_epochs={rounds + 1}", "train.eval_batch_size=8"),
    )
    theirs = timms_epoch(run, workers)
    speeds: dict[str, list[float]] = {"ours": [], "timm": []}
    batches = run.batches

    def taking_turns(max_steps: int | None = None) -> Iterator[Any]:
        """Our epoch, and before anything is written about it, theirs; the first of each is not counted."""
        begun = time.perf_counter()
        yield from batches(max_steps)
        synchronize(run.world.device)
        took = time.perf_counter() - begun
        images = run.steps_per_epoch * setting.batch
        pair = images / took, images / theirs()
        if run.at.epoch:
            for name, speed in zip(speeds, pair, strict=True):
                speeds[name].append(speed)
        if run.at.epoch and over(until):
            run.experiment.train.epochs = run.at.epoch + 1

    run.batches = taking_turns  # type: ignore[method-assign]
    fit(run)
    median = {name: statistics.median(found) for name, found in speeds.items()}
    ratio = statistics.median(a / b for a, b in zip(speeds["ours"], speeds["timm"], strict=True))
    lines = [
        f"{setting.encoder} at {setting.size} px, batch {setting.batch}, {run.experiment.train.precision}"
        f"{', channels last' if cuda else ''}, {workers} loader processes each, {setting.photos} JPEG files "
        f"of {setting.photo_size[0]}x{setting.photo_size[1]} px; random resized crops and flips, SGD. "
        f"Ours is `pretrain`, records included. Medians of {len(speeds['ours'])} epochs by turns.",
        *table(("loop", "images/s"), [(name, f"{value:.0f}") for name, value in median.items()]),
        "",
        f"Ours does {ratio:.2f} times as many images a second as timm's.",
    ]
    return Found(lines)


def timms_epoch(run: Run, workers: int) -> Callable[[], float]:
    """A function that trains timm's network for an epoch on the run's images, and returns the seconds."""
    config, train, device = run.experiment.data, run.experiment.train, run.world.device
    images = create_dataset("", root=config.root, split="train", is_training=True)
    batches = create_loader(
        images,
        (3, config.image_size, config.image_size),
        train.batch_size,
        is_training=True,
        use_prefetcher=device.type == "cuda",
        color_jitter=None,
        interpolation=config.interpolation,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        device=device,
    )
    network = EncoderInfo(run.info.name, PHOTO_CLASSES, run.info.stem).build().to(device).train()
    if train.channels_last:
        network.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, "momentum", lr=0.1, weight_decay=1e-4, momentum=0.9)

    def epoch() -> float:
        begun = time.perf_counter()
        for pixels, labels in batches:
            pixels, labels = pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            if train.channels_last:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            with autocast(device, train.precision):
                loss = functional.cross_entropy(network(pixels), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        return time.perf_counter() - begun

    return epoch


def detector(setting: Setting, until: float) -> Found:
    """Seconds an iteration of our trainer, in fp32 and with AMP, and of Detectron2's with AMP, by turns."""
    from automix_transfer.detection import compatibility

    compatibility.require()
    from detection_step import start
    from detectron2.engine import DefaultTrainer

    from automix_transfer.detection.trainer import Trainer
    from automix_transfer.recipes.find import find_recipe

    cuda = setting.device.startswith("cuda")
    kinds = {"ours, fp32": (Trainer, "False"), "DefaultTrainer, fp32": (DefaultTrainer, "False")}
    if cuda:  # Detectron2 has AMP on GPUs only
        kinds = {"ours, fp32": (Trainer, "False"), "ours, AMP": (Trainer, "True"),
                 "DefaultTrainer, AMP": (DefaultTrainer, "True")}  # fmt: skip
    config, turns = find_recipe(setting.detector, "detection"), {}
    for number, (name, (kind, amp)) in enumerate(kinds.items()):
        options = [*setting.detector_options, "SOLVER.AMP.ENABLED", amp]
        output = f"{setting.folder}/detector_{number}"
        turns[name] = start(kind, output, options, config, setting.data / "VOC2007", int(cuda))
    for number in range(setting.detector_rounds + 3):  # the first three warm up
        if number > 4 and over(until):
            break
        for turn in turns.values():
            turn.step()
    rounds = len(turn.wall) - 3
    rows = [(name, f"{1000 * statistics.median(turn.wall[3:]):.1f}") for name, turn in turns.items()]
    batch = turn.trainer.cfg.SOLVER.IMS_PER_BATCH
    lines = [
        f"{setting.detector} on the embedded VOC images, batch {batch}, "
        f"`{' '.join(setting.detector_options)}`; reading included, medians of {rounds} iterations by turns."
        + ("" if cuda else " Detectron2 has AMP on GPUs only."),
        *table(("trainer", "ms an iteration"), rows),
    ]
    losses = [turn.trainer.storage.latest()["total_loss"][0] for turn in turns.values()]
    finite = all(np.isfinite(loss) for loss in losses)
    return Found(lines, "" if finite else f"a detector's loss is not finite: {losses}")


def wsol(setting: Setting, until: float) -> Found:
    """Images a second of class maps alone, and of the whole evaluation."""
    from wsol_whole import measure

    from automix_transfer.data.registry import DATASETS
    from automix_transfer.localization.maps.sources import EncoderMaps
    from automix_transfer.localization.targets import targets_of

    targets = targets_of(DATASETS["cub"](setting.data / "CUB_200_2011", "test"), "test")
    info = EncoderInfo(setting.encoder, 200, setting.stem, setting.wsol_size)
    source = EncoderMaps(
        info.build().eval(), info, image_size=setting.wsol_size, cam_class="predicted", device=setting.device
    )
    measure(source, targets)  # warms up
    found = []
    while not found or (len(found) < setting.rounds and not over(until)):
        found.append(measure(source, targets))
    rows = [
        (what, f"{len(targets) / statistics.median(getattr(one, seconds) for one in found):.0f}")
        for what, seconds in (
            ("class maps alone", "alone"),
            ("the network's part of it", "passes"),
            ("maps, boxes and scores", "whole"),
        )  # fmt: skip
    ]
    lines = [
        f"{setting.encoder} at {setting.wsol_size} px in fp32, batch {source.batch_size}, {len(targets)} "
        f"embedded images, medians of {len(found)} rounds by turns.",
        *table(("what", "images/s"), rows),
    ]
    return Found(lines)
