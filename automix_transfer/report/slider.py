"""The λ slider: the same pairs mixed by several methods at every λ, drawn beforehand, so that the page only
moves pictures.

A picture is a strip: one frame a λ, from 0 (image j) to 1 (image i), one below the other. ``slider.json``
says what the strips show.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import automix_mask, mix_block_of, mix_pairs, picture_method
from automix_transfer.figures.samples import Pairs, choose_pairs, pairs_of, shares
from automix_transfer.io import atomic_write, write_json
from automix_transfer.mixing import METHODS, AutoMix, Method
from automix_transfer.mixing.pairs import blend
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.progress import Progress
from automix_transfer.rng import derive_generator
from automix_transfer.runs.collect import SLIDER
from automix_transfer.text_files import read_text

LAMS = tuple(k / 20 for k in range(21))
#: rows of a frame's border repeated above and below it, so that scaling does not let its neighbours shine
#: through
PAD = 2
SIDE = 128  #: pixels of a frame at most
MASK = "automix_mask"


def rows() -> dict[str, tuple[str, str]]:
    """Row of the page -> its heading and what it does: the methods that the table gives a row."""
    found = {name: (entry.title, entry.slider) for name, entry in METHODS.items() if entry.slider}
    automix = found.pop("automix")
    return found | {MASK: ("AutoMix, mask", "orange: i, purple: j"), "automix": automix}


@dataclass
class Strips:
    """Strips of all rows: row -> (pairs, λ, H, W, 3) uint8; of the plain images: (pairs, H, W, 3); what the
    network sees in the mixes: row -> (pairs, λ, 2), its probabilities of the classes of image i and image
    j."""

    rows: dict[str, NDArray[np.uint8]]
    images_i: NDArray[np.uint8]
    images_j: NDArray[np.uint8]
    classes: list[tuple[str, str]]
    seen: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def render(
    method: Method,
    info: EncoderInfo,
    dataset: ClassificationDataset,
    count: int = 4,
    seed: int = 0,
    lams: tuple[float, ...] = LAMS,
    root: str | Path = "",
) -> Strips:
    """Mix ``count`` pairs of ``dataset`` at every λ: seconds on one core. Places that a method draws are the
    same for every λ.

    ``root``: of the data set, for the names of ImageNet's classes.

    Raises:
        UserError: the method has no Mix Block, or the data set has too few pairs of two classes.
    """
    method = mix_block_of(method)
    chosen = choose_pairs(dataset, count, seed)
    pairs = pairs_of(dataset, info, chosen)
    encoder = method.inference_encoder()
    labels = torch.tensor([[int(dataset.labels[k]) for k in pair] for pair in chosen])
    mixers, progress = mixers_of(method, pairs, info, seed), Progress("mixing for the slider", "λ")
    frames: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in mixers}
    seen: dict[str, list[NDArray[np.float64]]] = {name: [] for name in mixers if name != MASK}
    with eval_mode(method), torch.no_grad():
        for number, lam in enumerate(lams):
            progress(number, len(lams))
            for name, mixer in mixers.items():
                mixed = mixer(lam)[:count]
                if name == MASK:
                    frames[name].append(shares(mixed[:, 0].double().numpy()))
                    continue
                frames[name].append(pairs.pixels(mixed))
                seen[name].append(encoder(mixed).softmax(dim=1).gather(1, labels).double().numpy())
    words = synset_words(Path(root))
    names = [
        (words.get(dataset.classes[a], dataset.classes[a]), words.get(dataset.classes[b], dataset.classes[b]))
        for a, b in labels.tolist()
    ]
    return Strips(
        {name: np.stack(several, axis=1) for name, several in frames.items()},
        pairs.pixels(pairs.images_i),
        pairs.pixels(pairs.images_j),
        names,
        {name: np.stack(values, axis=1) for name, values in seen.items()},
    )


def synset_words(root: Path) -> dict[str, str]:
    """``n01440764`` -> ``tench``, from ImageNet's LOC_synset_mapping.txt, where it lies in ``root``."""
    try:
        lines = read_text(root / "LOC_synset_mapping.txt").splitlines()
    except UserError:
        return {}
    return {
        wnid: words if len(words) <= 24 else words.split(",")[0]
        for wnid, _, words in (line.partition(" ") for line in lines)
        if words
    }


def mixers_of(
    method: AutoMix, pairs: Pairs, info: EncoderInfo, seed: int
) -> dict[str, Callable[[float], Tensor]]:
    """Row -> λ -> mixed images (2n, 3, H, W), of the first n with image i first; the mask's row gives (2n, 1,
    H, W). A method that does not take the network or the images' size has no row."""
    images, partners, masks = pairs.images, pairs.permutation, {}

    def mask(lam: float) -> Tensor:
        if lam not in masks:
            masks[lam] = automix_mask(method, images, partners, lam, derive_generator(seed, "picture")).cpu()
        return masks[lam]

    found: dict[str, Callable[[float], Tensor]] = {}
    for name in rows():
        if name == MASK:
            found[name] = mask
        elif name == "automix":
            found[name] = lambda lam: blend(images, images[partners], mask(lam))
        else:
            try:
                found[name] = mixed_by(picture_method(name, method.inference_encoder(), info), pairs, seed)
            except UserError:
                continue
    return found


def mixed_by(method: Method, pairs: Pairs, seed: int) -> Callable[[float], Tensor]:
    """λ -> the pairs mixed by a method; places that it draws are the same for every λ."""

    def mixed(lam: float) -> Tensor:
        rng = derive_generator(seed, "picture")
        return mix_pairs(method, pairs.images, pairs.permutation, lam, rng).images

    return mixed


def write(folder: Path, strips: Strips, about: dict[str, Any], lams: tuple[float, ...] = LAMS) -> Path:
    """Write the strips as WebP into ``folder`` and ``slider.json`` last; returns it. ``about``: where network
    and images are from."""
    rows, height, width = {}, 0, 0
    for name, pictures in strips.rows.items():
        rows[name] = [f"{name}_{k}.webp" for k in range(len(pictures))]
        for file, frames in zip(rows[name], pictures, strict=True):
            height, width = _save(folder / file, frames)
    ends = {}
    for side, images in (("i", strips.images_i), ("j", strips.images_j)):
        ends[side] = [f"image_{side}_{k}.webp" for k in range(len(images))]
        for file, image in zip(ends[side], images, strict=True):
            _save(folder / file, image[None])
    seen = {
        name: [[[round(float(p), 4) for p in at] for at in pair] for pair in values]
        for name, values in strips.seen.items()
    }
    write_json(
        folder / SLIDER,
        {
            "lams": list(lams),
            "height": height,
            "width": width,
            "pad": PAD,
            "rows": rows,
            "images": ends,
            "classes": [list(pair) for pair in strips.classes],
            "seen": seen,
            **about,
        },
    )
    return folder / SLIDER


def _save(path: Path, frames: NDArray[np.uint8]) -> tuple[int, int]:
    """Frames (λ, H, W, 3) one below the other, each with its border repeated; returns a frame's height and
    width in the file."""
    count, height, width = frames.shape[:3]
    if max(height, width) > SIDE:
        scale = SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frames = np.stack(
            [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
        )
        count, height, width = frames.shape[:3]
    padded = np.pad(frames, ((0, 0), (PAD, PAD), (0, 0), (0, 0)), mode="edge")
    save_webp(path, padded.reshape(count * (height + 2 * PAD), width, 3), 84)
    return height, width


def save_webp(path: Path, picture: NDArray[np.uint8], quality: int) -> None:
    """Write (H, W, 3) uint8, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    atomic_write(path, lambda file: file.write(buffer.getvalue()))
