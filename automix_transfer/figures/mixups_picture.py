"""One picture of all mixups: the same pairs through every method at λ = 0.5, the masks beside."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from automix_transfer.evaluation.mixers import mix_pairs, picture_method
from automix_transfer.figures.samples import Pairs, cells_of, mask_cells
from automix_transfer.figures.sheet import Cell, save_parts, sheet
from automix_transfer.mixing import METHODS, AutoMix
from automix_transfer.models.classifier import find_classifiers
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.rng import derive_generator

LAM = 0.5


def mixups_picture(path: Path, pairs: Pairs, automix: AutoMix, seed: int = 0) -> Path:
    """A method in a row, a pair in a column: mixed image and mask.

    Args:
        pairs: 4 of them are legible.
        automix: its Mix Block draws AutoMix's masks; its encoder is the network that saliency, attention and
            SuperMix ask.
    """
    both = zip(pairs.pixels(pairs.images_i), pairs.pixels(pairs.images_j), strict=True)
    rows: list[tuple[str, list[Cell | None]]]
    rows = [("images", [Cell(image) for pair in both for image in pair])]
    for name, (mixed, mask) in mixed_by_all(pairs, automix, seed).items():
        beside = zip(cells_of(pairs.pixels(mixed)), mask_cells(mask[:, 0].double().numpy()), strict=True)
        rows.append((METHODS[name].title, [cell for cells in beside for cell in cells]))
    columns = ["i, mixed", "j, mask"] * len(pairs)
    return save_parts(path, [sheet(rows, columns, "λ = 0.5", side=88)])


def mixed_by_all(pairs: Pairs, automix: AutoMix, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Method -> mixed images (n, 3, H, W) and masks (n, 1, H, W) of the pairs, for all that the table has a
    picture of."""
    images, partners, network = pairs.images, pairs.permutation, automix.inference_encoder()
    classes, mean, std = find_classifiers(network)[-1].out_features, tuple(pairs.mean), tuple(pairs.std)
    info = EncoderInfo("", classes, image_size=images.shape[2], mean=mean, std=std)  # type: ignore[arg-type]
    found = {}
    with eval_mode(automix):
        for name in (name for name, entry in METHODS.items() if entry.picture is not None):
            rng = derive_generator(seed, "picture of mixups")
            method = automix if name == "automix" else picture_method(name, network, info)
            one = mix_pairs(method, images, partners, LAM, rng)
            found[name] = (one.images[: len(pairs)].detach(), one.mask[: len(pairs)].detach().cpu())
    return found
