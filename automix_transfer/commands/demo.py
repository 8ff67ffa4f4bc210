"""The whole chain on embedded data: pretrain with four methods, then automix-transfer transfer, which
exports, detects, localizes, fine-tunes and probes from three starts → one table and one page.

    automix-transfer demo --output runs/demo

Every step is the command that a user would type, run as a process of its own; the page names each. What is
done is not done again, so an interrupted demo goes on where it stopped; --fresh starts over.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix_transfer.command_line import command
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.jobs import Job, is_progress, plan_table, run_jobs, side_by_side
from automix_transfer.owner import LOCK, owned
from automix_transfer.progress import duration
from automix_transfer.text_files import read_text

METHODS = ("vanilla", "mixup", "cutmix", "automix")
BACKBONES = ("vanilla", "automix")  #: of those that are compared downstream, beside a random start
DETECTOR = "embedded_R10_FPN"
TASKS = "detection,localization,finetune,linear,knn"
DATA = {"voc": "VOC2007", "cub": "CUB_200_2011", "aircraft": "fgvc-aircraft-2013b"}  # and their folders
FINE_GRAINED = ("cub", "aircraft")
#: CAMs of a network trained at 80 px: maps need more cells than the 3x3 of stride 32.
WSOL = ("localization.image_size=112", "localization.output_stride=8")
#: corruptions of each group of the benchmark: these on 120 images take seconds, all 19 on all images minutes
ROBUSTNESS = (
    *("--limit", "120", "--corruptions"),
    "gaussian_noise,defocus_blur,fog,contrast,pixelate,jpeg_compression",
)
#: what --smoke changes
SMALL_DATA, SMALL_ROBUSTNESS = ("--scale", "0.1"), ("--limit", "16", "--corruptions", "fog")
SMALL_TRAINING = ("train.epochs=2", "train.batch_size=16", "schedule.warmup_epochs=0", "data.workers=0")
SMALL_DETECTION = ("SOLVER.MAX_ITER=6", "SOLVER.WARMUP_ITERS=2", "SOLVER.IMS_PER_BATCH=2")
NOTES = [
    "Embedded data and a few minutes of training: the numbers show that every part works, not which method "
    "is best. In a few hundred steps every mixup costs accuracy against vanilla training; its gain is a "
    "matter of long schedules (hundreds of epochs in the paper).",
    "One run each, so differences of a few points are within the noise of the seed.",
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="automix-transfer demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/demo"),
        help="folder of all that the demo writes (default runs/demo)",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("datasets"), help="folder of the embedded data (default datasets)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes side by side (default: the cores, at most 4)"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a minute's version that shows that all runs; its numbers mean nothing",
    )
    parser.add_argument("--fresh", action="store_true", help="remove --output first")
    args = parser.parse_args(arguments)
    parallel, begun = side_by_side(args.jobs), time.monotonic()
    with owned(args.output, "give another --output"):
        prepare(args.output, {"smoke": args.smoke}, args.fresh)
        jobs = chain(args.output, args.data, args.smoke, parallel)
        print(plan_table(jobs), flush=True)
        seconds = run_jobs(jobs, args.output / "logs", parallel)
        settings = {"smoke": args.smoke, "jobs": parallel, "commands": {job.name: job.line for job in jobs}}
        finish(args.output, args.data, settings, seconds, time.monotonic() - begun)
    return 0


def prepare(output: Path, settings: dict[str, Any], fresh: bool) -> None:
    """An empty folder, or that of an earlier demo with the same settings."""
    marker = output / "demo.json"
    for entry in others(output) if fresh and marker.is_file() else ():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if others(output):
        if not marker.is_file():
            raise UserError(f"--output {output} holds something that is no demo; choose another folder")
        if read_json(marker) != settings:
            raise UserError(
                f"--output {output} holds a demo with other settings; add --fresh to replace it, or choose "
                "another folder"
            )
    write_json(marker, settings)


def others(folder: Path) -> list[Path]:
    """What is in ``folder`` besides its owner's lock; its marker comes last."""
    return sorted((path for path in folder.iterdir() if path.name != LOCK), key=lambda path: path.is_file())


def chain(output: Path, data: Path, smoke: bool, parallel: int = 1) -> list[Job]:
    """Every job of the demo: the commands of the README at demo scale.

    Args:
        parallel: how many jobs of its own the comparison runs at a time.
    """
    make = _Steps(output, data, smoke)
    jobs = [make.data_sets()]
    for method in METHODS:
        jobs += [
            make.pretraining(method, 5.0 if method == "automix" else 1.7),
            make.evaluation(
                f"evaluate {method}",
                f"pretrain/{method}",
                "clean,calibration,fgsm,corruption",
                f"pretrain {method}",
                *(SMALL_ROBUSTNESS if smoke else ROBUSTNESS),
            ),
        ]
    # the last before the confusions: it fills all cores by itself
    jobs.append(make.comparison([job.name for job in jobs], parallel))
    for name in FINE_GRAINED:
        run = f"downstream/finetune/{name}/automix/seed1"
        jobs.append(make.evaluation(f"confusion {name}", run, "clean,calibration,confusion", "transfer"))
    return jobs


@dataclass(frozen=True)
class _Steps:
    """The steps of the demo as jobs; a step needs one other, and runs are named by their folders."""

    output: Path
    data: Path
    smoke: bool

    def data_sets(self) -> Job:
        words = command("data synthetic", "--out", str(self.data), *(SMALL_DATA if self.smoke else ()))
        return Job(
            "data", words, self.data / "coco" / "synthetic.json", minutes=0.5
        )  # the last to be written

    def pretraining(self, method: str, minutes: float) -> Job:
        run = self.output / "pretrain" / method
        given = (f"output={run}", f"data.root={self.data / 'imagenet'}")
        small = SMALL_TRAINING if self.smoke else ()
        words = command("pretrain", "--resume", "--config-file", f"embedded_r10_{method}", *given, *small)
        return Job(f"pretrain {method}", words, run / "metrics.json", ["data"], minutes)

    def evaluation(self, name: str, run: str, suite: str, needs: str, *more: str) -> Job:
        words = command("evaluate", "--run", str(self.output / run), "--suite", suite, *more)
        return Job(name, words, self.output / run / "evaluation.json", [needs], 0.3, is_progress)

    def comparison(self, needs: list[str], parallel: int) -> Job:
        folder = self.output / "downstream"
        starts = [f"{name}={self.output / 'pretrain' / name / 'last.pt'}" for name in BACKBONES]
        small = [f"finetune.{word}" for word in SMALL_TRAINING]
        small += [f"detection.{word}" for word in SMALL_DETECTION]
        words = command(
            "transfer",
            *("--backbones", *starts, "random", "--tasks", TASKS, "--seeds", "1"),
            *("--data", *(f"{name}={self.data / root}" for name, root in DATA.items())),
            *("--detector", DETECTOR, "--finetune-recipe", "embedded_cub"),
            *("--output", str(folder), "--jobs", str(parallel)),
            *WSOL,
            *(small if self.smoke else ()),
        )
        answered = folder / "answer.json"
        return Job("transfer", words, answered, needs, 6.0, lambda line: line.startswith("["), is_complete)


def is_complete(answer: Path) -> bool:
    """Whether the comparison is there, with nothing missing."""
    return answer.is_file() and not read_json(answer)["about"]["failures"]


def finish(
    output: Path, data: Path, settings: dict[str, Any], seconds: dict[str, float], total: float
) -> None:
    """Figures, ``summary.json``, the table and the page."""
    from automix_transfer.evaluation.mixers import load_method
    from automix_transfer.report.demo_figures import draw_figures
    from automix_transfer.report.page import build
    from automix_transfer.training.record.run_folder import git_commit
    from automix_transfer.transfer.chain_table import chain_table

    print("measuring mixed samples and drawing figures", flush=True)
    mixed = draw_figures(output, data, load_method(output / "pretrain" / "automix" / "last.pt"))
    took = earlier_seconds(output) | seconds | {"total": total}
    summary = summarize(output, mixed) | {
        **git_commit(),
        "notes": NOTES,
        "settings": settings,
        "seconds": {name: round(value, 1) for name, value in took.items()},
    }
    write_json(output / "summary.json", summary)
    table = f"{chain_table(summary)}\n\nDownstream\n{read_text(output / 'downstream' / 'answer.txt')}"
    write_text(output / "summary.txt", table + "\n")
    page = build(output, output / "report.html")
    print(f"\n{table}\n\n{duration(total)}; numbers: {output / 'summary.json'}; page: {page}", flush=True)


def earlier_seconds(output: Path) -> dict[str, float]:
    """What the jobs of an earlier, interrupted start took."""
    file = output / "summary.json"
    return dict(read_json(file).get("seconds", {})) if file.is_file() else {}


def summarize(output: Path, mixed: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Every number of the pretrainings, in percent, each read from the file that its command wrote."""

    def top1(run: str) -> float:
        return round(read_json(output / run / "metrics.json")["top1_median"], 2)

    pretrain: dict[str, dict[str, float]] = {
        method: {"top1": top1(f"pretrain/{method}"), **mixed.get(method, {})} for method in METHODS
    }
    last = read_json(output / "pretrain" / "automix" / "metrics.json")
    pretrain["automix"]["top1_q"] = round(last["top1_q_last"], 2)
    return {"pretrain": pretrain}
