"""Fig. 3: what networks see in the same mixed pairs: class activation maps of their two top classes, method
beside method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import Mixer
from automix_transfer.evaluation.opened import Run
from automix_transfer.figures.common import OWN, Asked, mixers_of, open_shown, title_of
from automix_transfer.figures.sheet import RIGHT, WIDTH, WRONG, Cell, Picture, class_name, sheet
from automix_transfer.localization.maps.cam import ClassActivation
from automix_transfer.localization.maps.score_maps import score_map
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.rng import derive_generator

CELLS = 7  #: a map should have at least so many a side, as a ResNet's has at 224 pixels
HEAT = colormaps["magma"]


def fig3(asked: Asked) -> Path:
    """Write the figure and its numbers: the two top classes of each network on mixed samples of its own
    method, and where it sees them.

    Raises:
        UserError: as the readers of runs and data; no run that mixes, a network without maps.
    """
    found = open_shown(asked, pairs=2)
    runs, mixers = mixers_of(found.runs, asked.mixed_by)
    labels = found.dataset.labels
    seen = {
        run.label: look(
            run, found.pairs.images, found.pairs.permutation, mixers[run.label], asked.lam, asked.seed
        )
        for run in runs
    }
    rows: list[tuple[str, list[Cell | None]]] = []
    numbers: list[dict[str, Any]] = []
    for pair, chosen in enumerate(found.chosen):
        names, truth = found.names(pair), {int(labels[index]) for index in chosen}
        block: list[list[Cell | None]] = [
            [Cell(found.pairs.pixels(found.pairs.images_i)[pair], names[0])],
            [Cell(found.pairs.pixels(found.pairs.images_j)[pair], names[1])],
            [None],
        ]
        by_run = {}
        for run in runs:
            mixed, top, probs, maps, how = seen[run.label]
            picture = found.pairs.pixels(mixed)[pair]
            both = {int(top[pair, 0]), int(top[pair, 1])} == truth
            block[0].append(Cell(picture, f"λ = {asked.lam:g}" + (", both seen" if both else "")))
            guesses = []
            for k, (label, prob) in enumerate(zip(top[pair].tolist(), probs[pair].tolist(), strict=True)):
                right = label in truth
                guesses.append({"class": found.dataset.classes[label], "probability": prob, "right": right})
                mark, ink = ("✓", RIGHT) if right else ("✗", WRONG)
                text = f"{mark} {prob:.2f} {class_name(found.dataset.classes[label])}"
                block[k + 1].append(Cell(heated(picture, maps[k][pair]), text, ink))
            by_run[run.label] = {"top2": guesses, "both": both, **how}
        rows += list(zip(("image i,\nmixed", "image j,\n1st class", "2nd class"), block, strict=True))
        numbers.append({"lam": asked.lam, "by_run": by_run})
    kind = "samples of its own method" if asked.mixed_by == OWN else f"samples of {asked.mixed_by}"
    part = sheet(
        rows,
        ["", *(title_of(run) for run in runs)],
        "What each network sees in mixed samples",
        side=max(96, min(190, (WIDTH - 110) // (len(runs) + 1) - 6)),
        breaks=range(3, len(rows), 3),
        column_breaks=(1,),
    )
    caption = (
        f"Class activation maps of the two top classes on mixed samples at λ = {asked.lam:g} (Fig. 3), each "
        f"network on {kind}; the same pairs for all. ✓: the class is one of the pair's two. Bright: where "
        "the evidence for the class lies."
    )
    content = {"seed": asked.seed, "mixed_by": asked.mixed_by, "by_pair": numbers}
    return found.write("fig3", caption, content, [part])


@torch.no_grad()
def look(
    run: Run, images: Tensor, permutation: Tensor, mixer: Mixer, lam: float, seed: int
) -> tuple[Tensor, Tensor, Tensor, list[NDArray[np.float64]], dict[str, Any]]:
    """Mixed images (n, 3, H, W) of the first half of ``images``, the two top classes (n, 2) and their
    probabilities, their maps as two arrays (n, H, W) in [0, 1], and how the maps were made."""
    encoder, size = run.encoder, images.shape[2]
    mixed = mixer(images, permutation, lam, derive_generator(seed, "picture"))[: len(images) // 2]
    with eval_mode(encoder):
        probs, top = encoder(mixed).float().softmax(dim=1).topk(2, dim=1)
        activation, how = fine_maps(encoder, size)
        maps = [
            np.stack([score_map(raw, size) for raw in activation(mixed, top[:, k])[0].double().cpu().numpy()])
            for k in range(2)
        ]
    return mixed, top, probs, maps, how


def fine_maps(encoder: nn.Module, size: int) -> tuple[ClassActivation, dict[str, Any]]:
    """CAM with at least `CELLS` cells a side where strides can be taken out of the network, or Grad-CAM where
    it has no CAM.

    The predictions are always the network's own; strides change only where a map is read.
    """
    problem, coarse = UserError("the network has no maps"), None
    for method in ("cam", "gradcam"):
        for stride in (None, 16, 8):
            try:
                coarse = ClassActivation(encoder, size, stride, method)
            except UserError as error:
                problem = error
                continue
            if min(coarse.map_shape) >= CELLS:
                break
        if coarse is not None:
            cells = list(coarse.map_shape)
            return coarse, {"map": method, "layer": coarse.layer, "cells": cells, "stride": coarse.stride}
    raise problem


def heated(image: Picture, heat: NDArray[np.float64]) -> Picture:
    """An image (H, W, 3) under a map (h, w) in [0, 1]: dark and grey where there is no evidence, bright where
    there is."""
    height, width = image.shape[:2]
    strength = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)[..., None]
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    colours = HEAT(strength[..., 0])[..., :3] * 255
    return np.asarray(
        (0.55 * (strength * image + (1 - strength) * 0.7 * grey) + 0.45 * colours).round().clip(0, 255),
        dtype=np.uint8,
    )
