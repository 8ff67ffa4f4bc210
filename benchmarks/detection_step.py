#!/usr/bin/env python3
"""Seconds an iteration: our detection trainer against Detectron2's plain DefaultTrainer, same config, same
data, in one run.

    python benchmarks/detection_step.py --data-root datasets/VOC2007 --pairs 60

Both trainers live in this process and take turns, one iteration each, the order changing from pair to pair,
so that whatever else the machine does falls on both. An iteration is everything that training does in it:
reading and augmenting images, forward, backward, step, hooks, logging. Medians of wall time and of this
process's CPU time, and their ratio with a 95 % interval (by resampling pairs); the first pairs warm up and
are left out. The two see different images (each has its own order), so a few dozen pairs say little about 2
%.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automix_transfer.detection import compatibility
from automix_transfer.errors import run_script
from automix_transfer.recipes.find import find_recipe

CONFIG = find_recipe("embedded_R10_FPN", "detection")
WARM_UP = 5
#: one size, so that iterations are alike, and nothing but iterations
ALIKE = (
    *("MODEL.WEIGHTS", "", "SEED", "1", "SOLVER.MAX_ITER", "100000"),
    *("TEST.EVAL_PERIOD", "0", "INPUT.MIN_SIZE_TRAIN", "(112,)"),
)


class Turn:
    """A Detectron2 trainer whose loop is driven from outside, an iteration at a time."""

    def __init__(self, trainer: Any) -> None:
        from detectron2.engine import hooks
        from detectron2.utils.events import EventStorage

        # ours makes its writers when it starts to train
        if not any(isinstance(hook, hooks.PeriodicWriter) for hook in trainer._hooks):
            trainer.register_hooks([hooks.PeriodicWriter(trainer.build_writers(), period=20)])
        self.trainer, self.wall, self.cpu = trainer, [], []
        trainer.iter, trainer.storage = 0, EventStorage(0)
        with trainer.storage:
            trainer.before_train()

    def step(self) -> None:
        trainer = self.trainer
        wall, cpu = time.perf_counter(), time.process_time()
        with trainer.storage:
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        trainer.iter += 1


def start(kind: Any, output: str, options: Sequence[str], config: Path, data: Path, gpus: int) -> Turn:
    """A trainer of ``kind`` before its first iteration, writing into ``output``; one seed for all.

    Args:
        options: KEY VALUE pairs over the recipe ``config``.
        data: a data set in VOC or COCO layout.
    """
    from automix_transfer.detection.trainer import arguments_of, prepare

    cfg = prepare(arguments_of(config, [*ALIKE, *options, "OUTPUT_DIR", output], data, gpus))
    logging.disable(logging.INFO)
    torch.manual_seed(1)
    np.random.seed(1)
    return Turn(kind(cfg))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="a data set in VOC or COCO layout")
    parser.add_argument(
        "--config-file", type=Path, default=CONFIG, help="default: the recipe embedded_R10_FPN"
    )
    parser.add_argument(
        "--pairs", type=int, default=60, help="iterations of each that are measured (default 60)"
    )
    parser.add_argument("--num-gpus", type=int, default=0, choices=(0, 1))
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    compatibility.require()
    torch.set_num_threads(args.threads)
    from detectron2.engine import DefaultTrainer

    from automix_transfer.detection.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        turns = {
            name: start(kind, f"{folder}/{name}", args.opts, args.config_file, args.data_root, args.num_gpus)
            for name, kind in (("DefaultTrainer", DefaultTrainer), ("ours", Trainer))
        }
        theirs, ours = turns.values()
        try:
            for pair in range(WARM_UP + args.pairs):
                for turn in (theirs, ours) if pair % 2 else (ours, theirs):
                    turn.step()
                if pair % 20 == 19:
                    print(f"{pair + 1} of {WARM_UP + args.pairs} pairs", flush=True)
        except KeyboardInterrupt:
            print(f"interrupted after {pair} pairs")
    count = min(len(theirs.wall), len(ours.wall))
    if count <= WARM_UP + 1:
        raise SystemExit("too few pairs to compare")
    print(
        f"{args.config_file.name}, batch {ours.trainer.cfg.SOLVER.IMS_PER_BATCH}, "
        f"{'1 GPU' if args.num_gpus else f'CPU, {args.threads} thread(s)'}, "
        f"{count - WARM_UP} pairs of iterations"
    )
    print(f"{'median s an iteration':24}{'DefaultTrainer':>16}{'ours':>10}{'ratio':>10}{'95 % interval':>18}")
    for clock in ("wall", "cpu"):
        a, b = (np.array(getattr(turn, clock)[WARM_UP:count]) for turn in (theirs, ours))
        drawn = np.random.default_rng(0).integers(0, len(a), (4000, len(a)))
        low, high = np.quantile(np.median(b[drawn], axis=1) / np.median(a[drawn], axis=1), (0.025, 0.975))
        theirs_s, ours_s = np.median(a), np.median(b)
        print(
            f"{clock + ' time':24}{theirs_s:16.4f}{ours_s:10.4f}{ours_s / theirs_s:10.4f}"
            f"{f'{low:.4f} - {high:.4f}':>18}"
        )


if __name__ == "__main__":
    run_script(main)
