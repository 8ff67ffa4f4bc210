"""Mixing pairs at a λ of one's own choice, for figures and for a trained Mix Block offline.

A *mixer* is a pure function ``(images, permutation, lam, rng) -> mixed``: images (N, C, H, W) and their
partners ``images[permutation]`` become (N, C, H, W) with share λ of image i.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError, first_line
from automix_transfer.mixing import METHODS, AutoMix, Method, build_method
from automix_transfer.mixing.average import method_state
from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.methods.mixup import combine
from automix_transfer.mixing.pairs import blend
from automix_transfer.mixing.parts.teacher import Teacher
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.eval_mode import eval_mode
from automix_transfer.models.weights_file import info_of
from automix_transfer.training.record import checkpoint

Mixer = Callable[[Tensor, Tensor, float, torch.Generator], Tensor]
PAIRS_A_DRAW = 8  #: of `pair_mixer`; a method that draws one box or mask a batch then shows many of them


def mixup(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """λ·x_i + (1-λ)·x_j."""
    return combine(images, PairDraw(lam, permutation))


def cutmix(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
    """A box of x_j in x_i, its place drawn for every pair.

    Unlike the training method the box is moved inside the image and not clipped at its border, so the share
    of i stays within the rounding of the box's sides of λ: about 1/H + 1/W.
    """
    count, _, height, width = images.shape
    inside = torch.ones(count, 1, height, width, dtype=torch.bool)
    for dimension, length in ((2, height), (3, width)):
        side = round(length * math.sqrt(1 - lam))
        start = (torch.rand(count, generator=rng) * (length - side + 1)).long().view(-1, 1, 1, 1)
        place = torch.arange(length).view(*(-1 if d == dimension else 1 for d in range(4)))
        inside &= (place >= start) & (place < start + side)
    return torch.where(inside.to(images.device), images[permutation.to(images.device)], images)


#: mixers that need no network
MIXERS: dict[str, Mixer] = {"mixup": mixup, "cutmix": cutmix}


@torch.no_grad()
def automix_mask(
    method: AutoMix, images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator
) -> Tensor:
    """The share s_i (N, 1, H, W) that a Mix Block in eval mode gives image i.

    It comes from the features that the block was trained on, encoder k's unless its options say otherwise.
    ``rng`` is used by the ablation with random grids only. In training the features may come from the batch's
    BatchNorm statistics (``method.k_mode=train``); here they come from the running ones, so a pair's mask
    does not depend on the other pairs.
    """
    with eval_mode(method):
        projected = method.mix_block.project(method.mask_features(images))
        seed = int(torch.randint(2**62, (), generator=rng))
        pairs = PairDraw(lam, permutation.to(images.device))
        return method.mask(projected, pairs, (images.shape[2], images.shape[3]), seed).float()


def automix_mixer(method: Method) -> Mixer:
    """The mixer of a trained `AutoMix`: plain MixUp within ``method.small_lam`` of 0 and 1, as in training.

    Raises:
        UserError: the method has no Mix Block.
    """
    block = mix_block_of(method)

    def mixer(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
        if min(lam, 1 - lam) <= block.options.small_lam and block.options.small_lam > 0:
            return mixup(images, permutation, lam, rng)
        mask = automix_mask(block, images, permutation, lam, rng)
        return blend(images, images[permutation.to(images.device)], mask)

    return mixer


def pair_mixer(method: Method) -> Mixer:
    """The mixer of any method that mixes pairs at a given λ: its own draw, anew for every few pairs.

    A box that the image's border clips leaves image i more than λ, as in training. Methods that mix features
    are shown by the mix of their input. Saliency (PuzzleMix) is that of the class which the method's network
    predicts.
    """

    def mixer(images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Tensor:
        partners, mixed = images[permutation.to(images.device)], []
        with eval_mode(method):
            for own, other in zip(images.split(PAIRS_A_DRAW), partners.split(PAIRS_A_DRAW), strict=True):
                both, partner = torch.cat([own, other]), torch.arange(2 * len(own)).roll(len(own))
                with torch.no_grad():
                    mixed.append(mix_pairs(method, both, partner, lam, rng).images[: len(own)])
        return torch.cat(mixed)

    return mixer


def mix_pairs(method: Method, images: Tensor, permutation: Tensor, lam: float, rng: torch.Generator) -> Mixed:
    """Images and their partners by one draw of ``method``, with the classes that its network predicts."""
    draw = method.draw(len(images), (images.shape[2], images.shape[3]), rng, lam).with_partners(permutation)
    labels = method.inference_encoder()(images).argmax(dim=1)
    return method.mix(images, labels, draw)


def picture_method(name: str, network: nn.Module, info: EncoderInfo) -> Method:
    """Method ``name`` with its options for pictures around a trained ``network``, its teacher, too.

    Raises:
        UserError: the network or the size of the images does not fit.
    """
    options, parts = dict(METHODS[name].picture or {}), {}
    if hasattr(METHODS[name].options_class(), "teacher_weights"):
        options["teacher_size"], parts["teacher"] = info.image_size, Teacher(network, info)
    return build_method(name, network, options, info, **parts)


def own_mixer(name: str, method: Method) -> Mixer | None:
    """How method ``name`` mixes at a given λ; None where the table of methods says that it does not."""
    if isinstance(method, AutoMix):
        return automix_mixer(method)
    return MIXERS.get(name) or (pair_mixer(method) if METHODS[name].at_lam else None)


def mix_block_of(method: Method) -> AutoMix:
    """``method``, if it has a Mix Block; else a `UserError`."""
    if not isinstance(method, AutoMix):
        raise UserError(
            f"method '{type(method).__name__}' has no Mix Block; give the checkpoint of a run with "
            "method.name=automix"
        )
    return method


def load_method(path: str | Path, device: str | torch.device = "cpu") -> tuple[Method, EncoderInfo]:
    """The method of a training checkpoint in eval mode, and what is known of its encoder.

    Raises:
        UserError: the file is no training checkpoint of ours, or was written by a version that built the
            method otherwise.
    """
    path = Path(path)
    method, info = method_of(checkpoint.read(path), path)
    return method.to(device), info


def method_of(content: Mapping[str, Any], source: Path) -> tuple[Method, EncoderInfo]:
    """`load_method` of a checkpoint that is read already; ``source`` is its file, for messages."""
    name, info = "?", info_of(source, content["encoder"])
    try:
        name = content["config"]["method"]["name"]
        given, left_out = content["config"]["method"], ("name", *METHODS[name].retired)
        options = {key: value for key, value in given.items() if key not in left_out}
        with torch.device("meta"):  # a file may name a network that is larger than itself
            named = sum(value.numel() for value in info.build().state_dict().values())
        held = sum(value.numel() for value in content["model"].values())
        if named > held:
            raise UserError(f"it names an encoder of {named:,} values, and holds {held:,}")
        method = build_method(name, info.build(), options, info)
        method.load_state_dict(method_state(content["model"] | content.get("model_extra", {})))
    # hand-edited or of another version
    except (UserError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{source} does not fit the method '{name}' of this version ({first_line(error)}); use the "
            "version that wrote it"
        ) from error
    return method.eval(), info
