"""Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 of a trained classifier, or of anybody's score maps.

  from a checkpoint or an export (CUB or Tiny-ImageNet in their native layouts):
    python wsol/evaluate.py --dataset cub --root /data/CUB_200_2011 --checkpoint runs/cub/last.pt --output runs/cub/wsol.json
  from score maps, <DIR>/<image id>.npy, with the reference's metadata files (image_ids, class_labels, image_sizes, localization .txt):
    python wsol/evaluate.py --scoremaps DIR --metadata DIR --output out.json

Prints a table and, with --output, writes JSON, a CSV with a line an image (out.csv) and the curves (out.png). A run that was interrupted
goes on where it stopped when the same command is given again (with --output).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from automix_transfer.errors import UserError, run_script
from automix_transfer.localization.metrics import default_thresholds

DATASETS = ("cub", "tiny_imagenet")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_argument_group("what is evaluated")
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="checkpoint of a training run, export, or torchvision/timm weights")
    source.add_argument("--encoder", metavar="NAME", help="timm name of the encoder, where the file does not say it")
    source.add_argument("--which", help="encoder of a checkpoint that holds several: k (default) or q")
    source.add_argument("--scoremaps", type=Path, metavar="DIR", help="score maps instead of a checkpoint: (S, S) float arrays in [0, 1]")
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=DATASETS, help="layout of --root")
    data.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set")
    data.add_argument("--split", default=None, help="default: test (cub), val (tiny_imagenet)")
    data.add_argument("--metadata", type=Path, metavar="DIR", help="folder of the reference's metadata files, for --scoremaps")
    how = parser.add_argument_group("how (the defaults are the reference's)")
    how.add_argument("--image-size", type=int, default=224,
                     help="side of the encoder's input; images are resized straight to a square (default 224)")
    how.add_argument("--map-size", type=int, default=224, help="side of the maps that boxes are taken from (default 224)")
    how.add_argument("--output-stride", type=int, default=None, choices=(32, 16, 8),
                     help="pixels of the image per cell of the map; the reference's ResNets have 16 (default: the encoder's own)")
    how.add_argument("--cam-class", default="ground-truth", choices=("ground-truth", "predicted"),
                     help="class whose map is taken; 'predicted' for encoders trained on other classes")
    how.add_argument("--interval", type=float, default=0.001, help="step of the thresholds (default 0.001: 1,000 thresholds)")
    how.add_argument("--threshold", type=float, default=None,
                     help="fixed threshold of GT-known and top-1/top-5 localization (default: MaxBoxAcc's best)")
    how.add_argument("--raw-maps", action="store_true", help="--scoremaps of any size and range: resize and normalise them first")
    how.add_argument("--batch-size", type=int, default=32)
    how.add_argument("--workers", type=int, default=None, help="threads (default: all cores)")
    how.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    out = parser.add_argument_group("output")
    out.add_argument("--output", type=Path, metavar="FILE.json")
    out.add_argument("--save-maps", type=Path, metavar="DIR", help="write every score map as DIR/<image id>.npy")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if (args.checkpoint is None) == (args.scoremaps is None):
        raise UserError("give either --checkpoint FILE with --dataset and --root, or --scoremaps DIR with --metadata DIR")
    for name, low in (("image_size", 1), ("map_size", 2), ("batch_size", 1)):
        if getattr(args, name) < low:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least {low}")
    if not 0 < args.interval <= 1:
        raise UserError(f"--interval {args.interval} must lie in (0, 1]")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        raise UserError(f"--threshold {args.threshold} must lie in [0, 1)")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers} must be at least 1")
    if args.output is not None and args.output.suffix != ".json":
        raise UserError(f"--output {args.output} must end in .json; the CSV and the PNG are written beside it")
    results = from_score_maps(args) if args.scoremaps is not None else from_checkpoint(args)
    print(results.table())
    if args.output is not None:
        print("written:", ", ".join(str(file) for file in results.write(args.output)))
    results.records.remove()


def from_score_maps(args: argparse.Namespace):
    from automix_transfer.localization.evaluate import evaluate_score_maps, print_progress
    from automix_transfer.localization.targets import read_metadata

    if args.metadata is None:
        raise UserError("--scoremaps needs --metadata DIR with image_ids.txt, class_labels.txt, image_sizes.txt and localization.txt")
    return evaluate_score_maps(args.scoremaps, read_metadata(args.metadata), map_size=args.map_size, raw=args.raw_maps,
                               thresholds=default_thresholds(args.interval), threshold=args.threshold, workers=args.workers,
                               progress=print_progress())


def from_checkpoint(args: argparse.Namespace):
    import torch

    from automix_transfer.data.registry import DATASETS as READERS
    from automix_transfer.localization.evaluate import evaluate, print_progress
    from automix_transfer.models.weights import load_encoder

    if args.dataset is None or args.root is None:
        raise UserError(f"--checkpoint needs --dataset ({' or '.join(DATASETS)}) and --root DIR")
    split = args.split or {"cub": "test", "tiny_imagenet": "val"}[args.dataset]
    listing = READERS[args.dataset](args.root, split)
    encoder, info = load_encoder(args.checkpoint, args.encoder, args.which)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    digest = hashlib.sha256(args.checkpoint.read_bytes()).hexdigest()
    about = {"dataset": args.dataset, "split": split, "checkpoint": str(args.checkpoint), "which": args.which, "weights_sha256": digest}
    partial = None if args.output is None else args.output.with_suffix(".partial")
    try:
        results = evaluate(encoder, info, listing, image_size=args.image_size, map_size=args.map_size, output_stride=args.output_stride,
                           cam_class=args.cam_class, thresholds=default_thresholds(args.interval), threshold=args.threshold,
                           batch_size=args.batch_size, workers=args.workers, device=device, save_maps=args.save_maps,
                           partial=partial, signature=about, progress=print_progress())
    except KeyboardInterrupt:
        kept = f"; what was evaluated is kept in {partial}: the same command goes on from there" if partial else ""
        print(f"interrupted{kept}", file=sys.stderr)
        sys.exit(130)
    results.summary.update(about)
    return results


if __name__ == "__main__":
    run_script(main)
