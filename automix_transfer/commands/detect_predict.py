"""Detect objects in images with a detector that was trained here, from its run folder and nothing else.

    automix-transfer detect predict --run runs/voc_r50 photo.jpg        # -> runs/voc_r50/predictions/
    automix-transfer detect predict --run runs/voc_r50 photos/ --output found --threshold 0.3

OUTPUT/drawn holds every image with its boxes, and OUTPUT/predictions.json all of them in COCO's format:
images (file names relative to the folder that was given), categories, and annotations with a score each,
which is also what pycocotools' loadRes takes. An image that cannot be read is reported and left out; the
exit code is then 1, and 0 where all went well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from automix_transfer.command_line import command_parser
from automix_transfer.console import say
from automix_transfer.errors import UserError
from automix_transfer.owner import owned, refuse_foreign, refuse_top_folder


def parser() -> argparse.ArgumentParser:
    result = command_parser("detect predict", __doc__)
    add = result.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    run = "OUTPUT_DIR of a training (config.yaml, categories.json, model_final.pth)"
    add("--run", type=Path, required=True, metavar="DIR", help=run)
    add("--output", type=Path, metavar="DIR", help="default: the run folder's predictions/")
    lowest = "lowest score that is kept (default 0.5)"
    add("--threshold", type=float, default=0.5, metavar="SCORE", help=lowest)
    add("--checkpoint", metavar="FILE", help="another file of the run folder than model_final.pth")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add("--no-draw", action="store_true", help="write the json only")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold {options.threshold} must be a score from 0 to 1")
    from automix_transfer.detection import compatibility

    compatibility.require()
    import torch

    from automix_transfer.detection.showing.inference import load_run
    from automix_transfer.detection.showing.predict import find_images, is_predictions, predict

    images = find_images(options.images)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    detector = load_run(options.run, options.checkpoint, device)
    output = options.output or options.run / "predictions"
    print(f"{detector.checkpoint}: {len(detector.names)} classes; {len(images)} images", flush=True)
    refuse_top_folder(output, "--output")
    with owned(output, "give another --output"):
        refuse_foreign(output / "predictions.json", is_predictions, "output of detect predict")
        found = predict(detector, images, output, options.threshold, not options.no_draw, say)
    count = f"{len(found.annotations)} detections with a score of at least {options.threshold}"
    drawn = "" if options.no_draw else f", {output / 'drawn'}"
    print(f"{count} in {len(found.images)} images: {output / 'predictions.json'}{drawn}")
    if found.problems:
        print(f"{len(found.problems)} of {len(images)} images could not be read, see above", file=sys.stderr)
    return 1 if found.problems else 0
