r"""How much the localization evaluator adds to an encoder's forward passes on a data set.

  python benchmarks/wsol_whole.py --weights tf_efficientnet_lite0.safetensors \
      --encoder tf_efficientnet_lite0 --dataset cub --root cub50

First the forward passes alone (images decoded, maps computed, nothing measured), then everything. The
evaluator's time is CPU time of resizing maps, both metrics and all thresholds, summed over its threads, which
run beside the passes.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from automix_transfer.data.registry import DATASETS
from automix_transfer.errors import run_script
from automix_transfer.localization.evaluate import evaluate
from automix_transfer.localization.maps.sources import EncoderMaps
from automix_transfer.localization.targets import TargetSet, targets_of
from automix_transfer.models.weights import load_encoder
from automix_transfer.progress import Progress


@dataclass(frozen=True)
class Seconds:
    """Of the forward passes ``alone``, and the network's share ``passes`` of them; of the ``whole``
    evaluation, and the network's share ``forward`` of it; and of the CPU time of the ``evaluator``, which
    runs beside it."""

    alone: float
    passes: float
    whole: float
    forward: float
    evaluator: float


def measure(source: EncoderMaps, target_set: TargetSet) -> Seconds:
    """The forward passes alone, then the whole evaluation, once each."""
    before, start, progress = source.seconds, time.perf_counter(), Progress("forward passes alone")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, _ in enumerate(source.produce(target_set, list(range(len(target_set))), pool), start=1):
            progress(done, len(target_set))
    alone, passes = time.perf_counter() - start, source.seconds - before
    results = evaluate(source, target_set, progress=lambda _name: Progress("the whole"))
    seconds = results.summary["seconds"]
    results.close()
    return Seconds(alone, passes, seconds["wall"], seconds["forward"], seconds["evaluator"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--encoder", metavar="NAME", help="where the file does not say it")
    parser.add_argument("--dataset", required=True, choices=("cub", "tiny_imagenet"))
    parser.add_argument("--root", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test")
    parser.add_argument("--image-size", type=int, default=224)
    args = parser.parse_args()
    target_set = targets_of(DATASETS[args.dataset](args.root, args.split), args.split)
    encoder, info = load_encoder(args.weights, args.encoder)
    source = EncoderMaps(encoder, info, image_size=args.image_size, cam_class="predicted")

    found = measure(source, target_set)
    n = len(target_set)
    print(
        f"{n:,} images of {args.image_size} px, {len(os.sched_getaffinity(0))} cores, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(f"passes alone: {found.alone:.1f} s wall, of which the network {found.passes:.1f} s")
    print(
        f"the whole:    {found.whole:.1f} s wall, of which the network {found.forward:.1f} s; "
        f"evaluator {found.evaluator:.1f} s of CPU, {1000 * found.evaluator / n:.2f} ms an image"
    )
    print(
        f"evaluator / forward pass = {found.evaluator / found.forward:.3f}; whole / passes alone = "
        f"{found.whole / found.alone:.3f}"
    )


if __name__ == "__main__":
    run_script(main)
