"""AutoMix exact, as published, by each approximation alone, and by the preset ``fast``: accuracy on the same
data beside the cost.

python benchmarks/fast_preset.py --data /data/tiny-imagenet-200 --output runs/fast
python benchmarks/fast_preset.py ... --seeds 0 1 2 --epochs 100 --per-class 500
python benchmarks/fast_preset.py ... --variants vanilla automix "generator on 1/4"

Encoder, schedule and jobs are those of mixups.py; a run that has finished is not run again, and an
interrupted one goes on. Passes are counted (a vanilla step of a large network: 3), top-1 is encoder k's, and
q's in a row of its own.
"""

from __future__ import annotations

import argparse
import re

import torch
from comparison import choose
from mixups import METHODS, arguments, jobs_of, results
from step_time import count_passes, make_step

from automix_transfer.config import load_config
from automix_transfer.errors import run_script
from automix_transfer.io import write_json
from automix_transfer.jobs import run_jobs
from automix_transfer.mixing.automix.options import AutoMixOptions

#: name -> what it changes in AutoMix, one saving a row
CANDIDATES = {
    "generator on 1/4": "generator_share=0.25",
    "features at half size": "features_scale=0.5",
    "clean on 1/4": "clean_share=0.25",
    "mixed on 1/2": "mixed_share=0.5",
    "no clean": "clean_share=0",
    "trained Mix Block": "mix_block_weights={output}/automix_{seed}/last.pt",
}
#: name as a folder's -> rough cost and overrides, as in mixups.METHODS
VARIANTS: dict[str, tuple[float, list[str]]] = {
    **{name: METHODS[name] for name in ("vanilla", "mixup", "automix", "automix_openmixup", "automix_fast")},
    **{
        f"automix_{re.sub('[^a-z0-9]+', '_', name.lower())}": (2.5, [f"method.{change}"])
        for name, change in CANDIDATES.items()
    },
}
FOLDERS = {
    **{name: name for name in VARIANTS},
    **dict(zip(CANDIDATES, list(VARIANTS)[-len(CANDIDATES) :], strict=True)),
}


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        metavar="NAME",
        help=f"default: all of {', '.join(FOLDERS)}",
    )
    options = parser.parse_intermixed_args()
    options.methods = [FOLDERS[name] for name in choose(options.variants, FOLDERS, "--variants")]
    if "automix_trained_mix_block" in options.methods:
        options.methods = list(dict.fromkeys(["automix", *options.methods]))
    run_jobs(
        [job for seed in options.seeds for job in jobs_of(seed, options, VARIANTS)],
        options.output / "logs",
        options.parallel,
    )
    rows = results(options)
    passes = {name: passes_of(name, options) for name in dict.fromkeys(["vanilla", *options.methods])}
    write_json(options.output / "passes.json", passes)
    shown = {folder: name for name, folder in FOLDERS.items()}
    print("\n| what | passes | x vanilla | top-1 k (%) | top-1 q (%) |\n| --- | --- | --- | --- | --- |")
    top1 = {row["method"]: row["top1"] for row in rows}
    for name, count in sorted(passes.items(), key=lambda item: -item[1]):
        q = top1.get(f"{name}, encoder q")
        shown_q = f"{q:.2f}" if q is not None else ""
        print(
            f"| {shown[name]} | {count:.2f} | {count / passes['vanilla']:.2f} | {top1[name]:.2f} | {shown_q} "
            "|"
        )


def passes_of(name: str, options: argparse.Namespace) -> float:
    """Passes of a step, the mean of four, by FLOPs at 64 px."""
    size = argparse.Namespace(
        encoder="resnet10_32", stem="imagenet", size=64, batch=16, teacher="resnet18", device="cpu"
    )
    changes = [
        text.removeprefix("method.").format(output=options.output, seed=options.seeds[0])
        for text in VARIANTS[name][1]
    ]
    values = dict(change.split("=", 1) for change in changes)
    kind = "automix" if name.startswith("automix") else name
    if kind == "automix":
        # says what is wrong before it is built
        load_config(AutoMixOptions, [], [f"{key}={value}" for key, value in values.items()])
    step = make_step(kind, size, torch.device("cpu"), "", values=values)
    return sum(count_passes(step.run, step.method, size) for _ in range(4)) / 4


if __name__ == "__main__":
    run_script(main)
