"""A detector before it is trained: its settings and data are checked, and one step of it is timed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from automix_transfer.detection.comparing.fits import check_detector
from automix_transfer.detection.engine import Trainer
from automix_transfer.detection.trainer import arguments_of
from automix_transfer.host.foreign_logs import without_logs
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.progress import to_stderr

AT_ONCE = 2  #: images of the step that is timed, as each GPU has in the recipes
LONG = 5.0  #: seconds; what takes longer is timed once, and not a second time warm


@cache
def rehearse(
    config_file: str, overrides: tuple[str, ...], data_root: Path, num_gpus: int, info: EncoderInfo
) -> float:
    """Seconds that a training of a detector and its evaluations take on this machine, by one step and one
    image measured with random weights, in the one thread of a job or on the GPU; 0, which is not known,
    where memory does not suffice for it.

    Args:
        overrides: as `automix-transfer detect` is given them; the file of MODEL.WEIGHTS need not be there.
        info: the network that MODEL.WEIGHTS will hold, or that random weights have, too.

    Raises:
        UserError: what the command itself would refuse of these settings and data.
    """
    arguments = arguments_of(config_file, overrides, data_root, num_gpus)
    source = overrides[overrides.index("MODEL.WEIGHTS") + 1]
    cfg = check_detector(arguments, source, info, whole=True)
    to_stderr(f"measuring a step of {config_file} on {data_root}")
    try:
        step, forward, tested = _measured(cfg)
    except (RuntimeError, MemoryError):
        return 0.0
    solver, every = cfg.SOLVER, cfg.TEST.EVAL_PERIOD
    evaluations = -(-solver.MAX_ITER // every) if every > 0 else 1
    trained = solver.MAX_ITER * solver.IMS_PER_BATCH
    return (trained * step + evaluations * tested * forward) / max(1, num_gpus)


def _measured(cfg: CfgNode) -> tuple[float, float, int]:
    """Seconds of a training step and of testing, for each image; and the number of test images."""
    single = cfg.clone()
    single.defrost()
    single.DATALOADER.NUM_WORKERS = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with without_logs(logging.INFO), EventStorage(0):
            model = Trainer.build_model(single)
            images = next(iter(Trainer.build_train_loader(single)))[:AT_ONCE]
            step = _timed(lambda: sum(model(images).values()).backward()) / len(images)
            model.eval()
            with torch.no_grad():
                tests = [Trainer.build_test_loader(single, name) for name in single.DATASETS.TEST]
                image = next(iter(tests[0]))
                forward = _timed(lambda: model(image)) / len(image)
            return step, forward, sum(len(loader.indices) for loader in tests)
    finally:
        torch.set_num_threads(threads)


def _timed(work: Callable[[], Any]) -> float:
    """Seconds of ``work``, of the second time where that does not take long."""
    seconds = 0.0
    for _ in range(2):
        begin = time.monotonic()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - begin
        if seconds > LONG:
            break
    return seconds
