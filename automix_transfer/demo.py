"""The whole chain on embedded data: pretrain → export → detect, localize, fine-tune → one table and one page.

    automix-transfer demo --output runs/demo        (or: make demo)

Every step is the command that a user would type, run as a process of its own; the page names each. What is
done is not done again, so an interrupted demo goes on where it stopped; --fresh starts over.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from automix_transfer.command_line import command, typed
from automix_transfer.errors import UserError, run_script
from automix_transfer.io import read_json, write_json, write_text
from automix_transfer.jobs import Job, run_jobs

METHODS = ("vanilla", "mixup", "cutmix", "automix")
FINE_GRAINED = ("cub", "aircraft")
#: corruptions of each group of the benchmark: these on 120 images take seconds, all 19 on all images minutes
CORRUPTIONS = "gaussian_noise,defocus_blur,fog,contrast,pixelate,jpeg_compression"
DETECTOR = "embedded_R10_FPN"
#: CAMs of a network trained at 80 px: maps need more cells than the 3x3 of stride 32.
WSOL = ("--image-size", "112", "--output-stride", "8")


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
        "--jobs",
        type=int,
        default=max(1, min(os.cpu_count() or 1, 4)),
        help="processes side by side (default: the cores, at most 4)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a minute's version that shows that all runs; its numbers mean nothing",
    )
    parser.add_argument("--fresh", action="store_true", help="remove --output first")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} must be at least 1")
    settings = {"smoke": args.smoke}
    begun = time.monotonic()
    prepare(args.output, settings, args.fresh)
    seconds = run_jobs(chain(args.output, args.data, args.smoke), args.output / "logs", args.jobs)
    finish(args.output, args.data, args.smoke, args.jobs, seconds, time.monotonic() - begun)
    return 0


def prepare(output: Path, settings: dict[str, Any], fresh: bool) -> None:
    """An empty folder, or that of an earlier demo with the same settings."""
    marker = output / "demo.json"
    if fresh and marker.is_file():
        shutil.rmtree(output)
    if output.exists() and any(output.iterdir()):
        if not marker.is_file():
            raise UserError(f"--output {output} holds something that is no demo; choose another folder")
        if read_json(marker) != settings:
            raise UserError(
                f"--output {output} holds a demo with other settings; add --fresh to replace it, or choose "
                "another folder"
            )
    write_json(marker, settings)


def chain(output: Path, data: Path, smoke: bool) -> list[Job]:
    """Every job of the demo: the commands of the README at demo scale."""
    small = (
        ["train.epochs=2", "train.batch_size=16", "schedule.warmup_epochs=0", "data.workers=0"]
        if smoke
        else []
    )
    encoder, backbone = output / "export" / "encoder.safetensors", output / "export" / "backbone.pkl"

    def train(name: str, recipe: str, run: str, *overrides: str) -> list[str]:
        given = (f"output={output / run}", *overrides, *small)
        return command(name, "--resume", "--config-file", recipe, *given)

    def export(kind: str, file: Path) -> list[str]:
        checkpoint = output / "pretrain" / "automix" / "last.pt"
        return command("export", "--checkpoint", str(checkpoint), "--to", kind, "--output", str(file))

    def evaluate(run: str, suite: str, *more: str) -> list[str]:
        return command("evaluate", "--run", str(output / run), "--suite", suite, *more)

    def detect(run: str, weights: str) -> list[str]:
        folder = output / "detection" / run
        short = (
            ["SOLVER.MAX_ITER", "6", "SOLVER.WARMUP_ITERS", "2", "SOLVER.IMS_PER_BATCH", "2"] if smoke else []
        )
        return command(
            "detect",
            "--resume",
            "--config-file",
            DETECTOR,
            "--num-gpus",
            "0",
            "--data-root",
            str(data / "VOC2007"),
            "OUTPUT_DIR",
            str(folder),
            "MODEL.WEIGHTS",
            weights,
            "SEED",
            "1",
            *short,
        )

    jobs = [
        Job(
            "data",
            command("data synthetic", "--out", str(data), *(["--scale", "0.1"] if smoke else [])),
            data / "coco" / "synthetic.json",
            minutes=0.5,
        )
    ]  # the set that is written last
    for method in METHODS:
        run = f"pretrain/{method}"
        jobs.append(
            Job(
                f"pretrain {method}",
                train("pretrain", f"embedded_r10_{method}", run, f"data.root={data / 'imagenet'}"),
                output / run / "metrics.json",
                ["data"],
                5.0 if method == "automix" else 1.7,
            )
        )
        robustness = ["--limit", "16" if smoke else "120", "--corruptions", "fog" if smoke else CORRUPTIONS]
        jobs.append(
            Job(
                f"evaluate {method}",
                evaluate(run, "clean,calibration,fgsm,corruption", *robustness),
                output / run / "evaluation.json",
                [f"pretrain {method}"],
                0.3,
                _figures_only,
            )
        )
    jobs.append(
        Job(
            "export",
            export("safetensors", encoder),
            encoder.with_suffix(".proof.json"),
            ["pretrain automix"],
            0.1,
        )
    )
    jobs.append(
        Job(
            "export detectron2",
            export("detectron2", backbone),
            backbone.with_suffix(".proof.json"),
            ["pretrain automix"],
            0.1,
        )
    )
    for run, weights, needs in (("random_init", "", "data"), ("automix", str(backbone), "export detectron2")):
        jobs.append(
            Job(
                f"detect {run}",
                detect(run, weights),
                output / "detection" / run / "results.json",
                [needs],
                1.5,
                _progress,
            )
        )
    for dataset in FINE_GRAINED:
        root = data / {"cub": "CUB_200_2011", "aircraft": "fgvc-aircraft-2013b"}[dataset]
        for start, initial, needs in (
            ("scratch", [], "data"),
            ("automix", [f"encoder.weights={encoder}"], "export"),
        ):
            run = f"finegrained/{dataset}_{start}"
            jobs.append(
                Job(
                    f"{dataset} {start}",
                    train("finetune", f"embedded_{dataset}", run, f"data.root={root}", *initial),
                    output / run / "metrics.json",
                    [needs],
                    0.6,
                )
            )
        jobs.append(
            Job(
                f"confusion {dataset}",
                evaluate(f"finegrained/{dataset}_automix", "clean,calibration,confusion"),
                output / "finegrained" / f"{dataset}_automix" / "evaluation.json",
                [f"{dataset} automix"],
                0.2,
                _figures_only,
            )
        )
    wsol = output / "wsol" / "automix.json"
    localize = command(
        "localize",
        "--dataset",
        "cub",
        "--root",
        str(data / "CUB_200_2011"),
        "--checkpoint",
        str(output / "finegrained" / "cub_automix" / "last.pt"),
        "--output",
        str(wsol),
        "--save-maps",
        str(output / "wsol" / "maps"),
        *WSOL,
    )
    return [*jobs, Job("localize", localize, wsol, ["cub automix"], 0.3)]


def _figures_only(line: str) -> bool:
    """Of what the evaluation prints: top-1, and what went wrong."""
    return line.lstrip().startswith("top-1 ") or line.startswith("error")


def _progress(line: str) -> bool:
    """Of what Detectron2 logs: losses with the time that is left, figures, and what went wrong."""
    return " iter: " in line or "AP50" in line or "Inference done" in line or line.startswith("error")


def finish(
    output: Path, data: Path, smoke: bool, parallel: int, seconds: dict[str, float], total: float
) -> None:
    """Figures, ``summary.json``, the table and the page."""
    from automix_transfer.evaluation.mixers import load_method
    from automix_transfer.report.cards import cam_shots, detection_shots, write_shots
    from automix_transfer.report.demo_figures import draw_figures
    from automix_transfer.report.page import build
    from automix_transfer.training.record.run_folder import git_commit
    from automix_transfer.transfer.chain_table import chain_table

    print("measuring mixed samples and drawing figures", flush=True)
    automix = load_method(output / "pretrain" / "automix" / "last.pt")
    mixed = draw_figures(output, data, automix)
    figures = output / "figures"
    results = output / "wsol" / "automix.json"
    write_shots(
        figures / "cams",
        cam_shots(results, output / "wsol" / "maps", data / "CUB_200_2011"),
        {
            "heading": "Where the classifier looks",
            "source": "wsol/automix.json",
            "caption": "Class activation maps on images of the embedded CUB-200 test split: true box green, "
            "box at the best threshold red.",
        },
    )
    detectors = {
        "random start": output / "detection" / "random_init",
        "AutoMix": output / "detection" / "automix",
    }
    write_shots(
        figures / "detections",
        detection_shots(detectors, data / "VOC2007"),
        {
            "heading": "What the detectors find",
            "source": "detection/automix",
            "caption": "The same test images for both detectors: true boxes green, found boxes (score 0.3 or "
            "more) in their class's colour.",
        },
    )
    summary = summarize(output, mixed)
    commands = {job.name: shlex.join(typed(job.command)) for job in chain(output, data, smoke)}
    summary["commit"] = git_commit()["commit"]
    summary["notes"] = NOTES
    summary["settings"] = {"smoke": smoke, "jobs": parallel, "commands": commands}
    summary["seconds"] = {
        **earlier_seconds(output),
        **{name: round(value, 1) for name, value in seconds.items()},
    }
    summary["seconds"]["total"] = round(total, 1)
    write_json(output / "summary.json", summary)
    table = chain_table(summary)
    write_text(output / "summary.txt", table + "\n")
    page = build(output, output / "report.html")
    print(
        f"\n{table}\n\n{total / 60:.1f} minutes; numbers: {output / 'summary.json'}; page: {page}", flush=True
    )


NOTES = [
    "Embedded data and a few minutes of training: the numbers show that every part works, not which method "
    "is best. In a few hundred "
    "steps every mixup costs accuracy against vanilla training; its gain is a matter of long schedules "
    "(hundreds of epochs in the paper).",
    "One run each, so differences of a few points are within the noise of the seed.",
]


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


if __name__ == "__main__":
    run_script(lambda: main())
