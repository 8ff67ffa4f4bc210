"""The table of methods: what is known of each by name, without importing it. A new method is a line here.

Classes stand here as ``module:Class`` and are imported when a method is built, so that command line, tables
and documents read this file without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """What is known of a method; `automix_transfer.figures.mixups_page` writes it into docs/mixing.md.

    Attributes:
        where: ``module:Class``, or a function that builds one of several; a first dot stands for this folder.
        title: its name for people; ``paper``: authors and year.
        passes: what a step costs, where vanilla's needs 3 (forward, weight gradient, input gradient).
        needs: what it asks for besides images and labels.
        label: the share of image i in the loss.
        differences: what the authors' code does, and other differences.
        at_lam: whether it mixes pairs at any λ that is given.
        picture: options for a picture of its mixes; None: they look like another method's, or there are none.
        slider: what the page's λ slider says of its row; empty: it has none.
        offline: whether it trains on images that were mixed before (``data.mixed``), with soft labels.
        retired: options that were accepted once and never read; old checkpoints name them still.
        options: ``module:Class`` of its options; empty: the ``options_class`` of its class.
        no_transform: why it is no transform of a batch (`automix_transfer.mixing.transform`), and what to use
            instead; empty: it is one, and takes a network where it ``needs`` something.
        one_label: why it cannot be trained on images with several labels; empty: it can.
    """

    where: str
    title: str
    paper: str = ""
    passes: str = "3"
    needs: str = ""
    label: str = "λ"
    differences: str = ""
    at_lam: bool = True
    picture: Mapping[str, Any] | None = None
    slider: str = ""
    offline: bool = False
    retired: tuple[str, ...] = ()
    options: str = ""
    no_transform: str = ""
    one_label: str = ""

    def load(self) -> Any:
        """The class or function, which takes an encoder and options."""
        return _named(self.where)

    def options_class(self) -> Any:
        """The dataclass of its options."""
        return _named(self.options) if self.options else self.load().options_class


def _named(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module, "automix_transfer.mixing"), name)


METHODS: dict[str, Entry] = {
    "vanilla": Entry(".methods.vanilla:Vanilla", "Vanilla", label="its own", at_lam=False),
    "mixup": Entry(
        ".methods.mixup:MixUp",
        "MixUp",
        "Zhang et al. 2018",
        "3, or 6 with `clean_weight`",
        picture={},
        slider="blends",
    ),
    "cutmix": Entry(
        ".methods.cutmix:CutMix",
        "CutMix",
        "Yun et al. 2019",
        "3, or 6 with `clean_weight`",
        label="area",
        picture={},
        slider="pastes a box",
    ),
    "mixup_cutmix": Entry(
        ".methods.mixup_cutmix:MixUpCutMix",
        "MixUp + CutMix",
        "timm; DeiT, RSB",
        label="λ or area",
        differences="partner = the batch reversed, as in timm (`partner=random`)",
        retired=("alpha",),
    ),
    "manifoldmix": Entry(
        ".methods.manifoldmix:ManifoldMix",
        "ManifoldMix",
        "Verma et al. 2019",
        needs="stages of the network",
        no_transform="it mixes features inside of the network; use mixup, or the method's own step",
    ),
    "attentivemix": Entry(
        ".methods.attentivemix:AttentiveMix",
        "AttentiveMix",
        "Walawalkar et al. 2020",
        "3 + a forward pass of the teacher",
        "teacher",
        "area",
        "the authors' code leaves BatchNorm in train mode and looks at the last channel only "
        "(`attention=released`); the comparison in the tables takes int(λ·cells) of them (`cells=0`)",
        picture={"cells": 0, "teacher_layer": "3"},
    ),
    "saliencymix": Entry(
        ".methods.saliencymix:SaliencyMix",
        "SaliencyMix",
        "Uddin et al. 2021",
        label="area",
        differences="the released detector is fed normalised floats and points at noise, and takes RGB for "
        "BGR, so that red has the weight of blue (`detector=as_published` does both; `uint8` weighs red as "
        "red); it finds one box and uses it for the whole batch (`box=batch`)",
        picture={},
        slider="pastes around j's salient point",
    ),
    "fmix": Entry(
        ".methods.fmix:FMix",
        "FMix",
        "Harris et al. 2020",
        differences="the released code takes the spectrum from two rows (`spectrum=released`)",
        picture={},
        slider="cuts by low-frequency noise",
    ),
    "resizemix": Entry(
        ".methods.resizemix:ResizeMix",
        "ResizeMix",
        "Qin et al. 2020",
        label="area",
        differences="the configs behind the tables draw the scale from Beta(α, α) (`scale=beta`)",
        picture={},
        slider="pastes all of j, made small",
    ),
    "puzzlemix": Entry(
        ".methods.puzzlemix:PuzzleMix",
        "PuzzleMix",
        "Kim et al. 2020",
        "5, or 6 with `clean_weight`",
        "gradient",
        "mean of the mask",
        "exact minimum cuts in place of alpha-beta swap on 32-bit costs, which overflow; a place that no "
        "block moves to keeps its own; seams also where 4 does not divide the block",
        picture={"blocks": [8]},
        slider="moves and keeps salient blocks",
    ),
    "comixup": Entry(
        ".methods.comixup:CoMixup",
        "Co-Mixup",
        "Kim et al. 2021",
        "6, or 5 without `clean_weight`",
        "gradient",
        "shares of the cells",
        "two descents for each output, the better one is kept; the start is given back where the objective "
        "would end above it",
        at_lam=False,
        picture={},
    ),
    "supermix": Entry(
        ".methods.supermix:SuperMix",
        "SuperMix",
        "Dabouei et al. 2021",
        "3 (and up to 50 steps an image before)",
        "teacher, offline",
        "target of the mix",
        "all of a batch get all their steps, where the released code stops when 30 % have succeeded "
        "(`enough=0.3`); images of one class succeed where it comes first, while the released code waits for "
        "an arbitrary second class, too; the Gaussian has an odd number of cells, so that it is centred (for "
        "σ 2 the released code takes 10, half a cell aside)",
        at_lam=False,
        picture={},
        offline=True,
        no_transform="its images are mixed before the training; load what automix-transfer supermix writes, "
        "or use puzzlemix",
        one_label="it mixes until the network's first classes are those of the images",
    ),
    "augmix": Entry(
        ".methods.augmix:AugMix",
        "AugMix",
        "Hendrycks et al. 2020",
        "9",
        "three views",
        "its own, and equal predictions",
        "timm's version adds colour, contrast, brightness and sharpness, which the paper leaves out",
        at_lam=False,
        picture={},
        no_transform="it compares three views of each image in its loss and keeps the labels; use the "
        "method's own step",
        one_label="it compares distributions over the classes",
    ),
    "alignmix": Entry(
        ".methods.alignmix:AlignMix",
        "AlignMix",
        "Venkataramanan et al. 2022",
        needs="feature map",
        no_transform="it mixes features inside of the network; use mixup, or the method's own step",
    ),
    "transmix": Entry(
        ".methods.transmix:TransMix",
        "TransMix",
        "Chen et al. 2022",
        needs="attention of a class token",
        label="half area, half attention",
        retired=("alpha",),
        no_transform="its labels come from the attention of the pass that is trained on; use cutmix, which "
        "has its images, or the method's own step",
    ),
    "automix": Entry(
        ".automix.choose:automix",
        "AutoMix",
        "Liu et al. 2022",
        "8.8, or 9 as published",
        "feature map, momentum encoder",
        differences="many: `method.preset=openmixup`, see [automix.md](automix.md)",
        picture={},
        slider="has learned what to show of each",
        options=".automix.options:AutoMixOptions",
        no_transform="its masks are learned in its own step; make its two calls, AutoMix(encoder)(images, "
        "labels).loss and after_step(progress), as examples/automix_plain_loop.py does",
    ),
}
