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

Prints a table and, with --output, writes out.json, out.csv (a line an image), out.png (the curve) and, where
the images are known, out.html: the best, median and worst images with map, true and predicted box. A run that
was interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.data.registry import DATASETS
from automix_transfer.device import choose_device
from automix_transfer.errors import UserError
from automix_transfer.io import sha256_of
from automix_transfer.localization.evaluate import Chosen, evaluate
from automix_transfer.localization.maps.map_formulas import METHODS
from automix_transfer.localization.maps.sources import EncoderMaps, FolderMaps
from automix_transfer.localization.metadata import read_metadata
from automix_transfer.localization.pipeline import Source
from automix_transfer.localization.scores.metrics import default_thresholds
from automix_transfer.localization.targets import targets_of, with_images
from automix_transfer.localization.writing import Results, table, write_results
from automix_transfer.models.weights import load_encoder
from automix_transfer.progress import Progress
from automix_transfer.report.localization_page import write_page

SPLITS = {"cub": "test", "tiny_imagenet": "val"}  # data sets with boxes, and the split that is reported
#: of options that not every run has: filled in where they apply, so that one that was given and does not is
#: noticed
DEFAULTS = {
    "method": "cam",
    "cam_class": "ground-truth",
    "image_size": 224,
    "batch_size": 32,
    "device": "auto",
    "examples": 8,
}
#: options by what they need: without it they would change nothing, and a result would seem to be of settings
#: that it is not of
NEEDS = {
    "checkpoint": (
        "encoder",
        "which",
        "method",
        "map_layer",
        "output_stride",
        "cam_class",
        "image_size",
        "batch_size",
        "device",
    ),
    "scoremaps": ("raw_maps", "threshold_scoremaps"),
    "dataset": ("root", "split", "threshold_split"),
    "metadata": ("images", "masks", "threshold_metadata"),
    "threshold_metadata": ("threshold_scoremaps",),
    "output": ("examples",),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="automix-transfer localize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    add_data(parser)
    add_threshold(parser)
    add_how(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--output", type=Path, metavar="FILE.json")
    out.add_argument(
        "--save-maps", type=Path, metavar="DIR", help="write every score map as DIR/<image id>.npy"
    )
    out.add_argument(
        "--examples",
        type=int,
        help=f"best, median and worst images on the page, of each (default {DEFAULTS['examples']}; 0: no "
        "page)",
    )
    return parser


def add_source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("what is evaluated")
    source.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="checkpoint of a training run, export, or torchvision/timm weights",
    )
    source.add_argument(
        "--encoder", metavar="NAME", help="timm name of the encoder, where the file does not say it"
    )
    source.add_argument("--which", help="encoder of a checkpoint that holds several: k (default) or q")
    source.add_argument(
        "--scoremaps",
        type=Path,
        metavar="DIR",
        help="score maps instead of a checkpoint: (S, S) float arrays in [0, 1]",
    )
    source.add_argument(
        "--raw-maps",
        action="store_true",
        help="--scoremaps of any size and range: resize and normalise them first",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=tuple(SPLITS), help="layout of --root")
    data.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set")
    data.add_argument("--split", default=None, help="default: test (cub), val (tiny_imagenet)")
    data.add_argument(
        "--metadata",
        type=Path,
        metavar="DIR",
        help="folder of the reference's metadata files, instead of --dataset",
    )
    data.add_argument("--images", type=Path, metavar="DIR", help="images of --metadata, <DIR>/<image id>")
    data.add_argument(
        "--masks", type=Path, metavar="DIR", help="folder that the mask files of --metadata are paths in"
    )


def add_threshold(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_argument_group(
        "threshold (default: the best one on the images that are reported, as MaxBoxAcc is defined)"
    )
    choice.add_argument(
        "--threshold",
        type=float,
        default=None,
        help="fixed threshold of GT-known and top-1/top-5 localization",
    )
    choice.add_argument(
        "--threshold-split", metavar="SPLIT", help="choose it on this split of --dataset, e.g. train"
    )
    choice.add_argument(
        "--threshold-metadata",
        type=Path,
        metavar="DIR",
        help="choose it on the images of these metadata files",
    )
    choice.add_argument(
        "--threshold-scoremaps", type=Path, metavar="DIR", help="their score maps (default: --scoremaps)"
    )


def add_how(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how (the defaults are the reference's)")
    how.add_argument(
        "--method",
        choices=METHODS,
        help=f"class map; cam needs a linear head after pooling (default {DEFAULTS['method']})",
    )
    how.add_argument(
        "--map-layer",
        metavar="NAME",
        help="layer of the map, for the other methods (default: the last that has one)",
    )
    how.add_argument(
        "--output-stride",
        type=int,
        default=None,
        choices=(32, 16, 8),
        help="pixels of the image per cell of the map; the reference's ResNets have 16 (default: the "
        "encoder's own)",
    )
    how.add_argument(
        "--cam-class",
        choices=("ground-truth", "predicted"),
        help="class whose map is taken; 'predicted' for encoders trained on other classes (default "
        f"{DEFAULTS['cam_class']})",
    )
    how.add_argument(
        "--image-size",
        type=int,
        help="side of the encoder's input; images are resized straight to a square (default "
        f"{DEFAULTS['image_size']})",
    )
    how.add_argument(
        "--map-size", type=int, default=224, help="side of the maps that boxes are taken from (default 224)"
    )
    how.add_argument(
        "--interval",
        type=float,
        default=0.001,
        help="step of the thresholds (default 0.001: 1,000 thresholds)",
    )
    how.add_argument(
        "--batch-size",
        type=int,
        help=f"images that the encoder sees at once (default {DEFAULTS['batch_size']})",
    )
    how.add_argument("--workers", type=int, default=None, help="threads (default: all cores)")
    how.add_argument("--device", help=f"cpu, cuda or auto (default {DEFAULTS['device']})")


def check(args: argparse.Namespace) -> None:
    """What the arguments alone can have wrong."""
    for name, low in (("image_size", 1), ("map_size", 2), ("batch_size", 1), ("workers", 1), ("examples", 0)):
        if getattr(args, name) is not None and getattr(args, name) < low:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least {low}")
    if not 1e-5 <= args.interval <= 1:
        raise UserError(f"--interval {args.interval} must lie in [0.00001, 1]")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        raise UserError(f"--threshold {args.threshold} must lie in [0, 1)")
    if args.threshold is not None and (args.threshold_split or args.threshold_metadata):
        raise UserError("--threshold fixes the threshold, and a split would choose it: give one of them")
    if args.output is not None and args.output.suffix != ".json":
        raise UserError(
            f"--output {args.output} must end in .json; the CSV, the PNG and the page are written beside it"
        )
    check_sources(args)
    for need, options in NEEDS.items():
        for option in options:
            # no examples (0) are none anyway
            if getattr(args, option) not in (None, False) and getattr(args, need) is None:
                name, other = (text.replace("_", "-") for text in (option, need))
                raise UserError(
                    f"--{name} needs --{other}, without which it changes nothing; leave --{name} out, or "
                    f"give --{other}"
                )
    if args.examples and args.metadata is not None and args.images is None:
        raise UserError(
            "--examples with --metadata needs --images DIR, which the page shows; leave --examples out, or "
            "give --images"
        )


def check_sources(args: argparse.Namespace) -> None:
    """Which maps, of which images."""
    if (args.checkpoint is None) == (args.scoremaps is None):
        raise UserError(
            "give either --checkpoint FILE with --dataset and --root, or --scoremaps DIR with --metadata DIR"
        )
    if (args.dataset is None) == (args.metadata is None):
        missing = (
            "--scoremaps needs --metadata DIR"
            if args.scoremaps
            else "--checkpoint needs --dataset NAME and --root DIR"
        )
        raise UserError(
            f"{missing}, or the other way to name the images (not both): --metadata DIR with image_ids.txt, "
            "class_labels.txt, "
            "image_sizes.txt and localization.txt, or --dataset NAME --root DIR"
        )
    if args.save_maps is not None and args.save_maps.resolve() in [
        folder.resolve() for folder in (args.scoremaps, args.threshold_scoremaps) if folder is not None
    ]:
        raise UserError(
            f"--save-maps {args.save_maps} is the folder of the score maps, which would be overwritten; give "
            "another one"
        )
    if args.dataset is not None and args.root is None:
        raise UserError("--dataset needs --root DIR, the folder of the data set")
    if args.checkpoint is not None and args.metadata is not None and args.images is None:
        raise UserError("--checkpoint with --metadata needs --images DIR, the images that the metadata names")


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    check(args)
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    partial = None if args.output is None else args.output.with_suffix(".partial")
    try:
        results, source = measure(args, partial)
    except KeyboardInterrupt:
        kept = f"; what was evaluated is kept in {partial}: the same command goes on from there"
        print("interrupted" + (kept if partial else ""), file=sys.stderr)
        return 130
    show(results, source, args)
    results.close()
    return 0


def measure(args: argparse.Namespace, partial: Path | None) -> tuple[Results, Source]:
    """The results, and the source of maps that they are of."""
    target_set, other_set = targets(args)
    about: dict[str, object] = {
        key: str(value)
        for key in ("dataset", "root", "metadata")
        if (value := getattr(args, key)) is not None
    }
    if args.dataset is not None:
        about["split"] = target_set.name  # metadata files do not say which split they are of
    source: Source
    if args.scoremaps is not None:
        source = FolderMaps(args.scoremaps, args.map_size, args.raw_maps)
        other_source = FolderMaps(args.threshold_scoremaps or args.scoremaps, args.map_size, args.raw_maps)
    else:
        source = other_source = encoder_maps(args)
        digest = sha256_of(args.checkpoint)
        about |= {"checkpoint": str(args.checkpoint), "which": args.which, "weights_sha256": digest}
    results = evaluate(
        source,
        target_set,
        thresholds=default_thresholds(args.interval),
        threshold=args.threshold,
        chosen=Chosen(other_set, other_source) if other_set else None,
        workers=args.workers,
        save_maps=args.save_maps,
        partial=partial,
        signature=about,
        progress=lambda split: Progress(f"localization, {split}"),
    )
    results.summary.update(about)
    return results, source


def show(results: Results, source: Source, args: argparse.Namespace) -> None:
    """Print the table and, with ``--output``, write files and page."""
    print(table(results))
    for note in results.summary["notes"]:
        print(f"note: {note}")
    if args.output is not None:
        files = write_results(results, args.output)
        if args.examples and (args.dataset or args.images):
            files.append(write_page(results, source, args.output.with_suffix(".html"), args.examples))
        print("written:", ", ".join(str(file) for file in files))


def targets(args: argparse.Namespace):
    """The images to report, and those to choose the threshold on (None)."""

    def from_dataset(split: str | None):
        return targets_of(DATASETS[args.dataset](args.root, split), split) if split else None

    def from_metadata(folder: Path | None):
        if folder is None:
            return None
        found = read_metadata(folder, args.masks)
        return found if args.images is None else with_images(found, args.images)

    if args.metadata is not None:
        return from_metadata(args.metadata), from_metadata(args.threshold_metadata)
    return from_dataset(args.split or SPLITS[args.dataset]), from_dataset(args.threshold_split)


def encoder_maps(args: argparse.Namespace):
    """Class maps of the checkpoint's encoder."""
    device = choose_device(args.device)
    encoder, info = load_encoder(args.checkpoint, args.encoder, args.which)
    return EncoderMaps(
        encoder,
        info,
        image_size=args.image_size,
        map_size=args.map_size,
        output_stride=args.output_stride,
        cam_class=args.cam_class,
        method=args.method,
        layer=args.map_layer,
        batch_size=args.batch_size,
        device=device,
    )
