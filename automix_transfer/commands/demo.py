"""The whole chain on embedded data: pretrain → export → detect, localize, fine-tune → one table and one page.

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

METHODS = ("vanilla", "mixup", "cutmix", "automix")
FINE_GRAINED = {"cub": "CUB_200_2011", "aircraft": "fgvc-aircraft-2013b"}  # and their folders
DETECTOR = "embedded_R10_FPN"
#: CAMs of a network trained at 80 px: maps need more cells than the 3x3 of stride 32.
WSOL = ("--image-size", "112", "--output-stride", "8")
#: corruptions of each group of the benchmark: these on 120 images take seconds, all 19 on all images minutes
ROBUSTNESS = (
    *("--limit", "120", "--corruptions"),
    "gaussian_noise,defocus_blur,fog,contrast,pixelate,jpeg_compression",
)
#: what --smoke changes
SMALL_DATA, SMALL_ROBUSTNESS = ("--scale", "0.1"), ("--limit", "16", "--corruptions", "fog")
SMALL_TRAINING = ("train.epochs=2", "train.batch_size=16", "schedule.warmup_epochs=0", "data.workers=0")
SMALL_DETECTION = (*("SOLVER.MAX_ITER", "6"), *("SOLVER.WARMUP_ITERS", "2"), *("SOLVER.IMS_PER_BATCH", "2"))
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
        jobs = chain(args.output, args.data, args.smoke)
        print(plan_table(jobs), flush=True)
        seconds = run_jobs(jobs, args.output / "logs", parallel)
        settings = {"smoke": args.smoke, "jobs": parallel, "commands": {job.name: job.line for job in jobs}}
        finish(args.output, args.data, settings, seconds, time.monotonic() - begun)
    return 0


def prepare(output: Path, settings: dict[str, Any], fresh: bool) -> None:
    """An empty folder, or that of an earlier demo with the same settings."""
    marker = output / "demo.json"
    for entry in others(output) if fresh and marker.is_file() else ():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
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


def chain(output: Path, data: Path, smoke: bool) -> list[Job]:
    """Every job of the demo: the commands of the README at demo scale."""
    make = _Steps(output, data, smoke)
    encoder, backbone = output / "export" / "encoder.safetensors", output / "export" / "backbone.pkl"
    jobs = [make.data_sets()]
    for method in METHODS:
        run, recipe, minutes = (
            f"pretrain/{method}",
            f"embedded_r10_{method}",
            5.0 if method == "automix" else 1.7,
        )
        jobs += [
            make.training(f"pretrain {method}", "pretrain", recipe, run, "imagenet", "data", minutes),
            make.evaluation(
                f"evaluate {method}",
                run,
                "clean,calibration,fgsm,corruption",
                f"pretrain {method}",
                *(SMALL_ROBUSTNESS if smoke else ROBUSTNESS),
            ),
        ]
    jobs += [
        make.export("export", "safetensors", encoder),
        make.export("export detectron2", "detectron2", backbone),
        make.detection("random_init", "", "data"),
        make.detection("automix", str(backbone), "export detectron2"),
    ]
    for name, root in FINE_GRAINED.items():
        for start, needs, *initial in (
            ("scratch", "data"),
            ("automix", "export", f"encoder.weights={encoder}"),
        ):
            title, run = f"{name} {start}", f"finegrained/{name}_{start}"
            jobs.append(make.training(title, "finetune", f"embedded_{name}", run, root, needs, 0.6, *initial))
        suite = "clean,calibration,confusion"
        jobs.append(make.evaluation(f"confusion {name}", run, suite, f"{name} automix"))
    return [*jobs, make.localization()]


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

    def training(
        self,
        name: str,
        program: str,
        recipe: str,
        run: str,
        root: str,
        needs: str,
        minutes: float,
        *more: str,
    ) -> Job:
        given = (f"output={self.output / run}", f"data.root={self.data / root}", *more)
        small = SMALL_TRAINING if self.smoke else ()
        words = command(program, "--resume", "--config-file", recipe, *given, *small)
        return Job(name, words, self.output / run / "metrics.json", [needs], minutes)

    def evaluation(self, name: str, run: str, suite: str, needs: str, *more: str) -> Job:
        words = command("evaluate", "--run", str(self.output / run), "--suite", suite, *more)
        return Job(name, words, self.output / run / "evaluation.json", [needs], 0.3, is_progress)

    def export(self, name: str, kind: str, file: Path) -> Job:
        checkpoint = str(self.output / "pretrain" / "automix" / "last.pt")
        words = command("export", "--checkpoint", checkpoint, "--to", kind, "--output", str(file))
        return Job(name, words, file.with_suffix(".proof.json"), ["pretrain automix"], 0.1)

    def detection(self, run: str, weights: str, needs: str) -> Job:
        folder = self.output / "detection" / run
        options = ("--config-file", DETECTOR, "--num-gpus", "0", "--data-root", str(self.data / "VOC2007"))
        keys = ("OUTPUT_DIR", str(folder), "MODEL.WEIGHTS", weights, "SEED", "1")
        words = command("detect", "--resume", *options, *keys, *(SMALL_DETECTION if self.smoke else ()))
        return Job(f"detect {run}", words, folder / "results.json", [needs], 1.5, is_progress)

    def localization(self) -> Job:
        result, checkpoint = (
            self.output / "wsol" / "automix.json",
            self.output / "finegrained/cub_automix/last.pt",
        )
        places = ("--root", self.data / "CUB_200_2011", "--checkpoint", checkpoint, "--output", result)
        maps = ("--save-maps", self.output / "wsol" / "maps")
        words = command("localize", "--dataset", "cub", *map(str, (*places, *maps)), *WSOL)
        return Job("localize", words, result, ["cub automix"], 0.3)


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
    write_pictures(output, data)
    took = earlier_seconds(output) | seconds | {"total": total}
    summary = summarize(output, mixed) | {
        **git_commit(),
        "notes": NOTES,
        "settings": settings,
        "seconds": {name: round(value, 1) for name, value in took.items()},
    }
    write_json(output / "summary.json", summary)
    table = chain_table(summary)
    write_text(output / "summary.txt", table + "\n")
    page = build(output, output / "report.html")
    print(f"\n{table}\n\n{duration(total)}; numbers: {output / 'summary.json'}; page: {page}", flush=True)


def write_pictures(output: Path, data: Path) -> None:
    """Activation maps of the classifier and boxes of both detectors, as the page shows them."""
    from automix_transfer.report.cards import cam_shots, detection_shots, write_shots

    write_shots(
        output / "figures" / "cams",
        cam_shots(output / "wsol" / "automix.json", output / "wsol" / "maps", data / "CUB_200_2011"),
        {
            "heading": "Where the classifier looks",
            "source": "wsol/automix.json",
            "caption": "Class activation maps on images of the embedded CUB-200 test split: true box green, "
            "box at the best threshold red.",
        },
    )
    detectors = {"random start": "random_init", "AutoMix": "automix"}
    runs = {name: output / "detection" / run for name, run in detectors.items()}
    write_shots(
        output / "figures" / "detections",
        detection_shots(runs, data / "VOC2007"),
        {
            "heading": "What the detectors find",
            "source": "detection/automix",
            "caption": "The same test images for both detectors: true boxes green, found boxes (score 0.3 or "
            "more) in their class's colour.",
        },
    )


def earlier_seconds(output: Path) -> dict[str, float]:
    """What the jobs of an earlier, interrupted start took."""
    file = output / "summary.json"
    return dict(read_json(file).get("seconds", {})) if file.is_file() else {}


def summarize(output: Path, mixed: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Every number of the chain, in percent, each read from the file that its command wrote."""

    def top1(run: str) -> float:
        return round(read_json(output / run / "metrics.json")["top1_median"], 2)

    def boxes(run: str) -> dict[str, float | None]:
        found = read_json(output / "detection" / run / "results.json")
        return {key: None if found[key] is None else round(found[key], 2) for key in ("AP", "AP50", "AP75")}

    wsol = read_json(output / "wsol" / "automix.json")

    def localization(found: dict[str, Any]) -> dict[str, float]:
        return {key: round(found[key], 2) for key in ("MaxBoxAcc", "MaxBoxAccV2")}

    pretrain: dict[str, dict[str, float]] = {
        method: {"top1": top1(f"pretrain/{method}"), **mixed.get(method, {})} for method in METHODS
    }
    last = read_json(output / "pretrain" / "automix" / "metrics.json")
    pretrain["automix"]["top1_q"] = round(last["top1_q_last"], 2)
    return {
        "pretrain": pretrain,
        "detection": {run: boxes(run) for run in ("random_init", "automix")},
        "wsol": {"center_box": localization(wsol["center_box"]), "automix": localization(wsol)},
        "finegrained": {
            dataset: {
                start: {"top1": top1(f"finegrained/{dataset}_{start}")} for start in ("scratch", "automix")
            }
            for dataset in FINE_GRAINED
        },
    }
