"""Every mixup on the same small encoder, data and schedule: top-1 and what a step took.

python benchmarks/mixups.py --data /data/tiny-imagenet-200 --output runs/mixups       # one seed
python benchmarks/mixups.py --data /data/tiny-imagenet-200 --output runs/mixups --seeds 0 1 2 --epochs 100 \\
    --per-class 500

Each run is a process of one thread, as many at a time as --parallel says; what has finished is not run again,
so the command can be interrupted, and more seeds can be added. α is appendix A.1's for Tiny-ImageNet and
ResNet-18. SuperMix is mixed by the vanilla run of its seed, and trained for half of the epochs, because its
data set has up to twice the images. TransMix is left out: it needs a class token.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comparison import choose, compare

from automix_transfer.command_line import command
from automix_transfer.errors import run_script
from automix_transfer.jobs import Job, run_jobs
from automix_transfer.recipes.find import RECIPES

#: method -> its rough cost in vanilla's, and what its run says beside the recipe; {output} and {seed} are
#: filled in
METHODS: dict[str, tuple[float, list[str]]] = {
    "vanilla": (1, []),
    "mixup": (1, []),
    "cutmix": (1, []),
    "mixup_cutmix": (1, ["method.smoothing=0"]),
    "manifoldmix": (1, []),
    "attentivemix": (
        2,
        ["method.cells=0", "method.alpha=0.2", "method.teacher_size=64", "method.teacher_layer=3"],
    ),
    "saliencymix": (1.1, []),
    "fmix": (1, []),
    "resizemix": (1, []),
    "puzzlemix": (3, []),
    "comixup": (2.5, []),
    "supermix": (1, []),
    "augmix": (4, []),
    "alignmix": (1.2, []),
    "automix": (3, []),
    "automix_openmixup": (3, ["method.preset=openmixup"]),
    "automix_fast": (1.5, ["method.preset=fast"]),
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    options = parser.parse_intermixed_args()
    options.methods = choose(options.methods, METHODS, "--methods")
    jobs = [job for seed in options.seeds for job in jobs_of(seed, options)]
    run_jobs(jobs, options.output / "logs", options.parallel)
    results(options)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The command line of a comparison: data, seeds and length; what is compared is for the caller to add."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="Tiny-ImageNet, or a part of it, as released"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--per-class", type=int, default=80, help="training images of each class (default %(default)s)"
    )
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for every run; not right after a list such as --seeds 0 1",
    )
    return parser


def jobs_of(
    seed: int, options: argparse.Namespace, methods: Mapping[str, tuple[float, list[str]]] = METHODS
) -> list[Job]:
    """The runs of one seed; vanilla first, because others use it. A run that names another one's folder waits
    for it."""
    common = [
        f"data.root={options.data}",
        f"data.limit_per_class={options.per_class}",
        "data.workers=0",
        "data.scale=[0.35,1.0]",
        "encoder.name=resnet10_32",
        "encoder.stem=imagenet",
        "optimizer.lr=0.1",
        "schedule.warmup_epochs=1",
        "train.batch_size=50",
        f"train.epochs={options.epochs}",
        "train.channels_last=true",
        "train.eval_batch_size=250",
        f"train.eval_every_epochs={options.epochs}",
        "train.device=cpu",
        "train.save_every_steps=0",
        f"seed={seed}",
        *options.overrides,
    ]
    vanilla = options.output / f"vanilla_{seed}"
    found = []
    for name in ["vanilla", *(n for n in options.methods if n != "vanilla")]:
        cost, extra = (
            methods[name][0],
            [text.format(output=options.output, seed=seed) for text in methods[name][1]],
        )
        # the rest of the name is a preset, or what was changed
        method = "automix" if name.startswith("automix") else name
        recipe = f"tiny_imagenet_r18_{method}"
        known = (RECIPES / "pretrain" / f"{recipe}.yaml").exists()
        config = ["--config-file", recipe if known else "tiny_imagenet_r18_vanilla"]
        folder = options.output / f"{name}_{seed}"
        # AutoMix's recipe has another preset and another last rate than the others' have
        start = ["method.preset=robust", "schedule.by=step", "schedule.final_lr=0"]
        said = [f"method.name={method}", *(start if method == "automix" else []), *common, *extra]
        needs = [
            f"{other} {seed}"
            for other in methods
            if any(f"={options.output / f'{other}_{seed}'}/" in text for text in extra)
        ]
        if name in ("attentivemix", "supermix"):
            needs = [f"vanilla {seed}"]
        if name == "attentivemix":
            said.append(f"method.teacher_weights={vanilla / 'last.pt'}")
        if name == "supermix":
            mixed = options.output / f"mixed_{seed}"
            found.append(
                Job(
                    f"mixing {seed}",
                    [
                        *command("supermix", *config, "--teacher", str(vanilla / "last.pt")),
                        "--output",
                        str(mixed),
                        *said,
                    ],
                    mixed / "mixed.json",
                    needs,
                    2,
                )
            )
            half = max(options.epochs // 2, 2)
            said += [f"data.mixed={mixed}", f"train.epochs={half}", f"train.eval_every_epochs={half}"]
            needs = [f"mixing {seed}"]
        found.append(
            Job(
                f"{name} {seed}",
                command("pretrain", *config, "--resume", *said, f"output={folder}"),
                folder / "metrics.json",
                needs,
                cost,
                keep=lambda line: "finished" in line,
            )
        )
    return found


def results(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs' accuracies as printed and written by `compare`."""
    setting = {"epochs": options.epochs, "per_class": options.per_class, "overrides": options.overrides}
    return compare(options.output, ["vanilla", *options.methods], options.seeds, batch=50, setting=setting)


if __name__ == "__main__":
    run_script(main)
