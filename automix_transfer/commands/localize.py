"""Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 (with masks: PxAP) of a trained classifier, or of
anybody's score maps.

  from a checkpoint or an export, on CUB or Tiny-ImageNet in their native layouts:
    automix-transfer localize --dataset cub --root /data/CUB_200_2011 --checkpoint runs/cub/last.pt \\
      --output runs/cub/wsol.json
  from a checkpoint, on images with the reference's metadata files (image_ids, class_labels, image_sizes,
  localization .txt):
    automix-transfer localize --metadata metadata/ILSVRC/test --images /data/ILSVRC --checkpoint r50.pth \\
      --encoder resnet50 --output out.json
  from score maps, <DIR>/<image id>.npy; no weights needed:
    automix-transfer localize --scoremaps DIR --metadata DIR --output out.json
  with masks (OpenImages): metadata whose localization.txt has lines of image id, mask file, ignore file:
    automix-transfer localize --scoremaps DIR --metadata DIR --masks DIR --output out.json
  on several GPUs, with the figures of one:
    torchrun --nproc-per-node 8 --no-python automix-transfer localize --dataset cub ...

Prints a table and, with --output, writes out.json, out.csv (a line an image), out.png (the curve) and, where
the images are known, out.html: the best, median and worst images with map, true and predicted box. A run that
was interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automix_transfer.command_line import command_parser
from automix_transfer.data.settings import check_workers
from automix_transfer.errors import UserError

#: the methods of `localization.maps.cam`, read without torch
METHODS = ("cam", "gradcam", "gradcam++", "layercam", "scorecam")
SPLITS = {"cub": "test", "tiny_imagenet": "val"}  # data sets with boxes, and the split that is reported
#: Of options that not every run has: filled in after `check`, which notices one that was given in vain.
DEFAULTS = {
    "method": "cam",
    "cam_class": "ground-truth",
    "image_size": 224,
    "batch_size": 32,
    "device": "auto",
    "examples": 8,
}
#: Options by what they need: without it a result would seem to be of settings that it is not of.
NEEDS = {
    "checkpoint": "encoder which method map_layer output_stride cam_class image_size batch_size device",
    "scoremaps": "raw_maps threshold_scoremaps",
    "dataset": "root split threshold_split",
    "metadata": "images masks threshold_metadata",
    "threshold_metadata": "threshold_scoremaps",
    "output": "examples",
}
LEAST = {"image_size": 1, "map_size": 2, "batch_size": 1, "workers": 1, "examples": 0}


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("localize", __doc__)
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    add = parser.add_argument_group("what is evaluated").add_argument
    weights = "checkpoint of a training run, export, or torchvision/timm weights"
    add("--checkpoint", type=Path, metavar="FILE", help=weights)
    add("--encoder", metavar="NAME", help="timm name of the encoder, where the file does not say it")
    add("--which", help="encoder of a file that holds several: k, q, ema, teacher, ...")
    maps = "score maps instead of a checkpoint: (S, S) float arrays in [0, 1]"
    add("--scoremaps", **folder, help=maps)
    raw = "--scoremaps of any size and range: resize and normalise them first"
    add("--raw-maps", action="store_true", help=raw)
    add = parser.add_argument_group("data").add_argument
    add("--dataset", choices=tuple(SPLITS), help="layout of --root")
    add("--root", **folder, help="folder of the data set")
    add("--split", help="default: test (cub), val (tiny_imagenet)")
    add("--metadata", **folder, help="folder of the reference's metadata files, instead of --dataset")
    add("--images", **folder, help="images of --metadata, <DIR>/<image id>")
    add("--masks", **folder, help="folder that the mask files of --metadata are paths in")
    add_measuring(parser, folder)
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, metavar="FILE.json")
    add("--save-maps", **folder, help="write every score map as DIR/<image id>.npy")
    pages = f"best, median and worst images on the page, of each (default {DEFAULTS['examples']}; 0: no page)"
    add("--examples", type=int, help=pages)
    return parser


def add_measuring(parser: argparse.ArgumentParser, folder: dict[str, Any]) -> None:
    """The options of thresholds and maps."""
    best = "the best one on the images that are reported, as MaxBoxAcc is defined"
    add = parser.add_argument_group(f"threshold (default: {best})").add_argument
    add("--threshold", type=float, help="fixed threshold of GT-known and top-1/top-5 localization")
    add("--threshold-split", metavar="SPLIT", help="choose it on this split of --dataset, e.g. train")
    add("--threshold-metadata", **folder, help="choose it on the images of these metadata files")
    add("--threshold-scoremaps", **folder, help="their score maps (default: --scoremaps)")
    add = parser.add_argument_group("how (the defaults are the reference's)").add_argument
    cam = f"class map; cam needs a linear head after pooling (default {DEFAULTS['method']})"
    add("--method", choices=METHODS, help=cam)
    layer = "layer of the map, for the other methods (default: the last that has one)"
    add("--map-layer", metavar="NAME", help=layer)
    stride = "pixels of the image per cell of the map; the reference's ResNets have 16"
    add("--output-stride", type=int, choices=(32, 16, 8), help=f"{stride} (default: the encoder's own)")
    shown = "class whose map is taken; 'predicted' for encoders trained on other classes"
    classes = ("ground-truth", "predicted")
    add("--cam-class", choices=classes, help=f"{shown} (default {DEFAULTS['cam_class']})")
    side = "side of the encoder's input; images are resized straight to a square"
    add("--image-size", type=int, help=f"{side} (default {DEFAULTS['image_size']})")
    cells = "side of the maps that boxes are taken from (default 224)"
    add("--map-size", type=int, default=224, help=cells)
    interval = "step of the thresholds (default 0.001: 1,000 thresholds)"
    add("--interval", type=float, default=0.001, help=interval)
    batch = f"images that the encoder sees at once (default {DEFAULTS['batch_size']})"
    add("--batch-size", type=int, help=batch)
    add("--workers", type=int, help="threads (default: all cores)")
    add("--device", help=f"auto, cpu, cuda, mps, xpu (default {DEFAULTS['device']})")


def check(args: argparse.Namespace) -> None:
    """What the arguments alone can have wrong."""
    for name, least in LEAST.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(f"{_option(name)} {getattr(args, name)} must be at least {least}")
    check_workers(args.workers or 0)
    for refused, sentence in refusals(args):
        if refused:
            raise UserError(sentence)
    for need, options in NEEDS.items():
        for option in options.split():
            # no examples (0) are none anyway
            if getattr(args, option) not in (None, False) and getattr(args, need) is None:
                raise UserError(
                    f"{_option(option)} needs {_option(need)}, without which it changes nothing; leave "
                    f"{_option(option)} out, or give {_option(need)}"
                )


def refusals(args: argparse.Namespace) -> list[tuple[Any, str]]:
    """Whether to refuse, and the sentence, in this order."""
    maps, named = args.scoremaps is not None, args.metadata is not None
    threshold, other = args.threshold, args.threshold_split or args.threshold_metadata
    saved = args.save_maps and args.save_maps.resolve()
    images = "--dataset NAME and --root DIR, or --metadata DIR (not both)"
    return [
        (not 1e-5 <= args.interval <= 1, f"--interval {args.interval} must lie in [0.00001, 1]"),
        (threshold is not None and not 0 <= threshold < 1, f"--threshold {threshold} must lie in [0, 1)"),
        (threshold is not None and other, "--threshold fixes what a split would choose: give one of them"),
        (args.output and args.output.suffix != ".json", f"--output {args.output} must end in .json"),
        ((args.checkpoint is None) != maps, "give either --checkpoint FILE or --scoremaps DIR"),
        ((args.dataset is None) != named, f"name the images by one of {images}"),
        (
            saved
            and saved
            in [folder.resolve() for folder in (args.scoremaps, args.threshold_scoremaps) if folder],
            f"the maps in --save-maps {args.save_maps} would be overwritten; give another folder",
        ),
        (args.dataset and args.root is None, "--dataset needs --root DIR, the folder of the data set"),
        (
            not maps and named and args.images is None,
            "--checkpoint with --metadata needs --images DIR, the images that the metadata names",
        ),
        (
            args.examples and args.output and named and args.images is None,
            "--examples with --metadata needs --images DIR, for the page; leave --examples out, or give it",
        ),
    ]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    from automix_transfer.commands.localize_run import localize

    localize(args)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, checked, and their defaults."""
    args = build_parser().parse_args(arguments)
    check(args)
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.split = args.split or SPLITS.get(args.dataset)
    return args
