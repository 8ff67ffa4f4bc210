"""Train and evaluate a detector (Faster or Mask R-CNN, C4 or FPN) from a backbone of ours, with Detectron2.

    automix-transfer detect --config-file voc_R50_C4_24k --num-gpus 8 MODEL.WEIGHTS r50.pkl
    automix-transfer detect --config-file embedded_R10_FPN --num-gpus 0 \\
        --data-root datasets/VOC2007 MODEL.WEIGHTS r10.pkl OUTPUT_DIR runs/detection

--config-file takes a recipe's name or a file. MODEL.WEIGHTS is a backbone made by `automix-transfer export
--to detectron2`, whose overlay (x.yaml beside x.pkl) is applied by itself; or, with MODEL.BACKBONE.NAME
timm_fpn/NAME (ViT, DeiT, Swin, ConvNeXt, ...), also a training checkpoint or .safetensors of such an encoder;
or "" to train from scratch. Every key of the backbone has to match; a config that contradicts the weights is
an error. Data: --data-root, or Detectron2's data set names at the folder that the environment variable
DETECTRON2_DATASETS names.

Recipes are made for 8 GPUs; with fewer, 2 images a GPU stay, and the rate and the schedule are scaled by
themselves, which is said.
--resume goes on with the same images in the same order, or starts where there is no checkpoint; settings that
are not repeated are the run's own.
The output folder holds config.yaml, metrics.json, TensorBoard events, last_checkpoint and model_final.pth as
Detectron2 has them, model_best.pth where TEST.EVAL_PERIOD is set, and results.json and results.csv with AP,
AP50 and AP75; --eval-only writes them as results_eval.json and results_eval.csv, since results.json says that
a run was trained to its end. --eval-only --checkpoints runs/x/model_*.pth evaluates each of them, with the
config.yaml beside them unless --config-file names another: checkpoints.csv, .json and .png. What is evaluated
already is not evaluated again; a file that is no detector of this config is left out (exit code 1).

TEST.LOSS True measures the losses of the test set, too (val_loss, val_loss_cls, ...), and SOLVER.PATIENCE N
ends a training after N evaluations that were no better in --best-metric than the best before them.

Exit codes: 0 finished, 2 bad input (one line says what), 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 138 SIGUSR1 (a
checkpoint was written; --resume goes on).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from automix_transfer import signals
from automix_transfer.command_line import command_parser
from automix_transfer.console import open_outputs, show_log
from automix_transfer.errors import EXIT_USER_ERROR, UserError
from automix_transfer.recipes.find import find_recipe

EPILOG = "Trailing KEY VALUE pairs override the config, e.g. SOLVER.BASE_LR 0.01 OUTPUT_DIR runs/x"


def parser() -> argparse.ArgumentParser:
    """Detectron2's flags, as `detectron2.engine.default_argument_parser` has them, and ours."""
    result = command_parser("detect", __doc__, EPILOG)
    add = result.add_argument
    add("--config-file", default="", metavar="FILE", help="a recipe's name, or a file")
    resume = "go on from last_checkpoint in OUTPUT_DIR, or start where there is none"
    add("--resume", action="store_true", help=resume)
    add(
        "--eval-only", action="store_true", help="only evaluate MODEL.WEIGHTS, or with --resume the run's own"
    )
    several = "with --eval-only: evaluate each of these, and draw AP by iteration (files, or a run's folder)"
    add("--checkpoints", nargs="+", metavar="FILE", help=several)
    add("--num-gpus", type=int, default=1, help="GPUs of each machine (default 1); 0: the CPU")
    add("--num-machines", type=int, default=1, help="machines (default 1)")
    add("--machine-rank", type=int, default=0, help="which of them this is, from 0 (default 0)")
    address = "where the processes meet: tcp://HOST:PORT of the first machine (default: a port of this one)"
    add("--dist-url", default=f"tcp://127.0.0.1:{own_port()}", metavar="URL", help=address)
    data = "a data set in VOC or COCO layout, instead of the config's DATASETS"
    add("--data-root", metavar="DIR", help=data)
    classes = "its classes in label order, one a line (default: those of the annotations)"
    add("--class-names", metavar="FILE", help=classes)
    hotcoco = "hotcoco: the same figures in a fraction of the time (pip install hotcoco)"
    add(
        "--coco-evaluator", default="pycocotools", metavar="NAME", help=f"pycocotools (default), or {hotcoco}"
    )
    best = "what model_best.pth is best at, measured every TEST.EVAL_PERIOD iterations (default: bbox/AP)"
    add("--best-metric", metavar="NAME", help=best)
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the config, last")
    return result


def own_port() -> int:
    """Detectron2's port of this user: the same each time, so that processes that were left behind show."""
    return 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14


def job(arguments: argparse.Namespace) -> int:
    """Train or evaluate; returns the exit code."""
    from automix_transfer.detection.trainer import prepare, train

    cfg = prepare(arguments)
    if not arguments.checkpoints:
        train(cfg, arguments)
        return 0
    from detectron2.utils import comm

    from automix_transfer.detection.comparing.checkpoint_series import STEM, evaluate_each
    from automix_transfer.detection.scores.results import HEADLINE
    from automix_transfer.detection.scores.validation_loss import TOTAL
    from automix_transfer.figures.checkpoint_curve import checkpoint_curve, panels_of
    from automix_transfer.figures.sheet import save_parts

    kept = f"what was evaluated is kept in {Path(cfg.OUTPUT_DIR) / STEM}.json: the same command goes on"
    with signals.kept(f"interrupted; {kept}"):
        rows, problems = evaluate_each(cfg, arguments)
    figures = [{**row, **row.get("losses", {})} for row in rows]
    titles = {"On the test split (%)": HEADLINE, "Loss on the test split": (TOTAL,)}
    panels = panels_of(figures, "iterations", titles)
    if panels and comm.is_main_process():
        save_parts(Path(cfg.OUTPUT_DIR) / f"{STEM}.png", [checkpoint_curve(panels)])
    return 1 if problems else 0


def work(arguments: argparse.Namespace) -> int:
    """What each process does."""
    import torch
    from detectron2.utils import comm

    if comm.get_world_size() == 1:
        return job(arguments)  # `run_script` says what goes wrong
    open_outputs()
    show_log()
    try:
        with signals.listening():
            signals.release()
            if code := job(arguments):
                sys.exit(code)
    except KeyboardInterrupt as stopped:
        if comm.is_main_process():
            print(stopped, file=sys.stderr)
        torch.distributed.destroy_process_group()
        sys.exit(getattr(stopped, "code", 130))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    return 0


def in_processes(launch: Callable[..., None], *arguments: Any) -> None:
    """Start the processes of several GPUs, and pass on to each every signal that comes here.

    They are started by a thread that holds signals back, which they inherit; so none dies while it imports.
    """
    with signals.StopRequest(impatient=False) as stop, ThreadPoolExecutor(1) as pool:
        with signals.held():
            running = pool.submit(launch, *arguments)
        told: set[int | None] = set()
        while not running.done():
            wait([running], timeout=0.2)
            for process in active_children() if stop.asked() else ():
                if process.pid and process.pid not in told:
                    os.kill(process.pid, stop.number)
                told.add(process.pid)
        running.result()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.config_file:
        options.config_file = str(find_recipe(options.config_file, "detection"))
    if not 0 <= options.machine_rank < max(1, options.num_machines):
        raise UserError(
            f"--machine-rank {options.machine_rank} is not one of {options.num_machines} machines; they "
            "count from 0"
        )
    from automix_transfer.detection import compatibility

    compatibility.require()
    from detectron2.engine import launch
    from torch.multiprocessing import ProcessExitedException

    from automix_transfer.detection.trainer import check_weights, prepare

    if options.checkpoints:
        from automix_transfer.detection.comparing.checkpoint_series import take_checkpoints

        take_checkpoints(options)
    # find mistakes here, in one sentence, before many processes start
    if options.num_gpus * options.num_machines > 1:
        cfg = prepare(options)
        if not options.checkpoints:
            check_weights(cfg, options)
        options.data_checked = True
    place = options.num_machines, options.machine_rank, options.dist_url, (options,)
    try:
        if options.num_gpus * options.num_machines > 1:
            in_processes(launch, work, options.num_gpus, *place)
        else:
            return work(options)
    except ProcessExitedException as error:  # a process that ended with a code of ours has said why
        return error.exit_code if error.exit_code > 0 else 1
    return 0
