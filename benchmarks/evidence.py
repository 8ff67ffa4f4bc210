"""Does AutoMix train a better network than vanilla training and CutMix, on real images, at a CPU's length?

python benchmarks/evidence.py --data tiny-imagenet-40 --output runs/evidence --blocks A A100  # what is left
python benchmarks/evidence.py --keep benchmarks/evidence --table --docs docs    # the tables, from small files

`tiny-imagenet-40` is Tiny-ImageNet as released, or every fifth class of it. The first 100 training images
of each class are trained on. The 400 others, which no run has seen, are measured on, once, when every run of
a block is done; the official validation images are for the learning curves, and for choices, with seeds from
100 up. The last epoch counts. How far a network has overfitted is said by its top-1 on the images that it was
trained on.

Every run is a command of one thread, which goes on where it stopped; give the same line again. `--keep DIR`
holds what the tables need of each run that is done (metrics.json, log.csv, held.json), so that a lost machine
costs one run at most. Block A84 asks what is left of a gain at equal compute, block B at equal passes; block
C is about other methods. Block why changes one thing in AutoMix and in CutMix, with seeds from 100 up, and is
compared with A100 on the validation images, and on those that it was trained on.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from evidence_table import FIRST_CHOOSING, write_tables

from automix_transfer.command_line import command
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import read_json, write_json
from automix_transfer.jobs import Job, run_jobs

#: written before the first run: AutoMix's network and the other method's, at 30 and at 100 epochs, paired by
#: seed; the mean difference of top-1 with its 95 % interval by t. k is what the paper evaluates
CONTRASTS = (("automix k", "vanilla"), ("automix k", "cutmix"))
#: said beside them: q, and the moving averages of the others, for k is one
BESIDE = (
    ("automix q", "vanilla"),
    ("automix q", "cutmix"),
    ("automix k", "vanilla ema"),
    ("automix k", "cutmix ema"),
    ("automix k", "cutmix_clean"),
    ("automix k", "cutmix_0.2"),
    ("automix@30 k", "vanilla@84"),
    ("automix@30 k", "cutmix@84"),
    ("automix k", "mixup"),
    ("automix k", "puzzlemix"),
    ("automix k", "openmixup q"),
)
PER_CLASS = 100  #: training images of a class
EMA = ("ema.decay=0.999", "ema.warmup=true", "ema.inference=false")
#: name -> (the recipe's method, what is said besides, minutes of an epoch on a core). α is 1 in every method,
#: so that all draw λ alike, but for cutmix_0.2: appendix A.1's for ResNet-18 on Tiny-ImageNet
METHODS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "vanilla": ("vanilla", EMA, 0.35),
    "cutmix": ("cutmix", ("method.alpha=1", *EMA), 0.35),
    "automix": ("automix", ("method.preset=robust", "method.alpha=1", "method.feature_layer=2"), 0.9),
    # the clean cross-entropy is the one pass of q that CutMix does not have
    "automix_mixed_only": (
        "automix",
        ("method.preset=robust", "method.alpha=1", "method.feature_layer=2", "method.cross_entropy=false"),
        0.7,
    ),
    "cutmix_clean": ("cutmix", ("method.alpha=1", "method.clean_weight=1"), 0.65),
    "cutmix_0.2": ("cutmix", ("method.alpha=0.2",), 0.35),
    "mixup": ("mixup", ("method.alpha=1",), 0.35),
    "puzzlemix": ("puzzlemix", (), 0.9),
    "openmixup": (
        "automix",
        ("method.preset=openmixup_tiny", "method.alpha=1", "method.feature_layer=2"),
        0.9,
    ),
    "printed": ("automix", ("method.preset=printed", "method.alpha=1", "method.feature_layer=2"), 0.9),
}
WHY = "why"  #: the block that is for choices
FIVE, THREE, CHOOSING = range(5), range(3), range(FIRST_CHOOSING, FIRST_CHOOSING + 1)
#: block -> (method, epochs, seeds). 84 epochs cost vanilla and CutMix what 30 cost AutoMix, whose step takes
#: 2.8 times as long
BLOCKS: dict[str, tuple[tuple[str, int, range], ...]] = {
    "A": (("automix", 30, FIVE), ("vanilla", 30, FIVE), ("cutmix", 30, FIVE)),
    "A100": (("automix", 100, THREE), ("vanilla", 100, THREE), ("cutmix", 100, THREE)),
    "A84": (("vanilla", 84, THREE), ("cutmix", 84, THREE)),
    "B": (("cutmix_clean", 30, FIVE), ("cutmix_0.2", 30, FIVE)),
    "C": (("mixup", 30, FIVE), ("openmixup", 30, THREE), ("puzzlemix", 30, THREE), ("printed", 30, range(1))),
    WHY: (("automix_mixed_only", 100, CHOOSING), ("cutmix_clean", 100, CHOOSING)),
}
HELD, SEEN = "held", "seen"  #: folders of the images that nobody trained on, and of those that all did
MEASURED = "{}_{}.json"  #: a run's evaluation on one of them, of one of its networks
HELD_KEYS = ("images", "top1", "top5", "ece15", "nll", "fgsm_error")


@dataclass(frozen=True)
class Run:
    """One training of a block."""

    method: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}_{self.epochs}_{self.seed}"

    @property
    def networks(self) -> tuple[str, ...]:
        """The encoders to evaluate, by the names of ``evaluate --which``."""
        recipe, said, _ = METHODS[self.method]
        return ("k", "q") if recipe == "automix" else ("encoder", "ema") if EMA[0] in said else ("encoder",)


def main() -> None:
    """Train and measure what is missing of the blocks, or print the table."""
    options = arguments().parse_args()
    if options.table:
        if options.output:
            keep(options, [run for block in BLOCKS for run in runs_of(block)])
        return write_tables(options.keep, CONTRASTS, BESIDE, options.docs)
    if not (options.data and options.output):
        raise UserError("--data and --output are needed to train; or give --keep DIR --table")
    write_folders(Path(options.data), options.output)
    for block in options.blocks:
        runs = runs_of(block)
        jobs = [training(run, options) for run in runs]
        run_jobs(jobs, options.output / "logs", options.parallel)
        keep(options, runs)
        jobs += [job for run in runs for job in measuring(run, options, held=block != WHY)]
        run_jobs(jobs, options.output / "logs", options.parallel)
        keep(options, runs)


def runs_of(block: str) -> list[Run]:
    """The trainings of a block."""
    return [Run(method, epochs, seed) for method, epochs, seeds in BLOCKS[block] for seed in seeds]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="DIR", help="Tiny-ImageNet, or a part of its classes, as released")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the runs")
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), default=["A", "A100"])
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder of the small files of finished runs")
    parser.add_argument(
        "--table", action="store_true", help="train nothing; print the tables of what is in --keep"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="with --table: draw evidence.png here")
    return parser


def training(run: Run, options: argparse.Namespace) -> Job:
    """The command that trains ``run``."""
    recipe, said, minutes = METHODS[run.method]
    folder = options.output / run.name
    words = [
        f"data.root={options.data}",
        "data.classes=0",
        f"data.limit_per_class={PER_CLASS}",
        "data.workers=0",
        "data.scale=[0.35,1.0]",
        "data.test_crop_ratio=1.0",
        "encoder.name=resnet10_32",
        "encoder.stem=imagenet",
        "optimizer.lr=0.1",
        "schedule.by=step",
        "schedule.final_lr=0",
        "train.batch_size=100",
        f"train.epochs={run.epochs}",
        "train.channels_last=true",
        "train.eval_batch_size=250",
        "train.eval_every_epochs=5",
        "train.picture_epochs=[]",
        "train.device=cpu",
        "train.save_every_steps=200",
        f"seed={run.seed}",
        *said,
        f"output={folder}",
    ]
    line = command("pretrain", "--config-file", f"tiny_imagenet_r18_{recipe}", "--resume", *words)
    return Job(run.name, line, folder / "metrics.json", (), minutes * run.epochs, lambda text: "top1" in text)


def measuring(run: Run, options: argparse.Namespace, held: bool = True) -> Iterator[Job]:
    """The commands that measure the first network of ``run`` on the images that it was trained on, and each,
    where they are ``held``, on those that nobody trained on (accuracy, calibration, and under FGSM)."""
    first, before = run.networks[0], run.name
    for where, which in ((SEEN, first), *((HELD, which) for which in run.networks if held)):
        output = options.output / run.name / MEASURED.format(where, which)
        words = ["--weights", str(output.with_name("last.pt")), "--which", which]
        words += ["--data", str(options.output / where), "--test-crop-ratio", "1", "--batch-size", "250"]
        suite = "clean,calibration,fgsm" if (where, which) == (HELD, first) else "clean"
        line = command("evaluate", *words, "--device", "cpu", "--suite", suite, "--output", str(output))
        name = f"{run.name} {where} {which}"
        yield Job(name, line, output, (before,), 2, lambda text: "top-1" in text)
        before = name  # one at a time, for each owns the run's folder


def write_folders(data: Path, output: Path) -> None:
    """`SEEN` and `HELD` as folders of class folders: the first `PER_CLASS` training images of a class, in the
    order in which ``data.limit_per_class`` takes them, and the others."""
    config = DataConfig(dataset="tiny_imagenet", root=str(data))
    every = load_listing(config, config.train_split)
    trained = set(load_listing(replace(config, limit_per_class=PER_CLASS), config.train_split).paths)
    for path, label in zip(every.paths, every.labels, strict=True):
        copy = output / (SEEN if path in trained else HELD) / every.classes[int(label)] / path.name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def keep(options: argparse.Namespace, runs: list[Run]) -> None:
    """Copy what the tables need of ``runs``, without the paths of this machine."""
    for run in runs if options.keep else ():
        folder, kept = options.output / run.name, options.keep / run.name
        if not (folder / "metrics.json").is_file():
            continue
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.json", "log.csv"):
            shutil.copyfile(folder / name, kept / name)
        # a start of a run that is done trains nothing
        last = read_json(folder / "metrics.json")["steps"]
        start = [one for one in read_json(folder / "run.json")["starts"] if one["from_step"] < last][-1]
        held = {key: start[key] for key in ("commit", "changed", "device", "packages")}
        for which in run.networks:
            if (file := folder / MEASURED.format(HELD, which)).is_file():
                held[which] = {key: value for key, value in read_json(file).items() if key in HELD_KEYS}
            if (file := folder / MEASURED.format(SEEN, which)).is_file():
                held.setdefault(which, {})["seen_top1"] = read_json(file)["top1"]
        write_json(kept / "held.json", held)


if __name__ == "__main__":
    run_script(main)
