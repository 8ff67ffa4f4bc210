"""One schedule for any number of GPUs, and a resumed run that trains what was begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from automix_transfer.detection.config_files import same, set_value
from automix_transfer.errors import UserError

FREE_ON_RESUME = (
    "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.PATIENCE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.ON_BAD_IMAGE",
    "OUTPUT_DIR",
    "MODEL.WEIGHTS",
    "MODEL.DEVICE",
    "DATASETS.TEST",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "TEST",
    "VIS_PERIOD",
    "VERSION",
    "CUDNN_BENCHMARK",
    "SOLVER.REFERENCE_WORLD_SIZE",
)

BATCH_NORMS = ("BN", "SyncBN")  # one and the same but for the number of processes


def scale_schedule(cfg: CfgNode, recipe: CfgNode, typed: set[str], world: int) -> str:
    """Fit a schedule for ``SOLVER.REFERENCE_WORLD_SIZE`` GPUs to ``world`` processes; returns what to print.

    The batch of each process stays. So the total batch and the learning rate change by one factor, and
    everything that is counted in iterations by its inverse: images seen and rate per image stay. A reference
    of 0 is a schedule that is never scaled.

    Args:
        cfg: changed in place.
        recipe: the config as its file has it.
        typed: keys of the command line, which are taken as they are; a typed batch decides the factor.

    Raises:
        UserError: a reference that does not divide the batch.
    """
    solver, reference, batch = cfg.SOLVER, cfg.SOLVER.REFERENCE_WORLD_SIZE, recipe.SOLVER.IMS_PER_BATCH
    if reference == 0:
        return ""
    if reference < 0 or batch < 1 or batch % reference:
        raise UserError(
            f"SOLVER.REFERENCE_WORLD_SIZE is {reference}, which does not divide SOLVER.IMS_PER_BATCH "
            f"{batch}; give the number of GPUs that the schedule is for, or 0 to leave the schedule as it is"
        )
    if "SOLVER.IMS_PER_BATCH" not in typed:
        solver.IMS_PER_BATCH = batch // reference * world
    solver.REFERENCE_WORLD_SIZE = world  # or Detectron2 would scale once more
    factor = solver.IMS_PER_BATCH / batch
    if factor == 1:
        return ""

    def count(key: str, value: int) -> int:
        return value if key in typed else round(value / factor)

    if "SOLVER.BASE_LR" not in typed:
        solver.BASE_LR = solver.BASE_LR * factor
    if "SOLVER.STEPS" not in typed:
        solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
    for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
        solver[key] = max(1, count(f"SOLVER.{key}", solver[key])) if solver[key] else 0
    cfg.TEST.EVAL_PERIOD = count("TEST.EVAL_PERIOD", cfg.TEST.EVAL_PERIOD)
    return (
        f"schedule for {world} {'process' if world == 1 else 'processes'} (made for {reference}): "
        f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}, BASE_LR {solver.BASE_LR:g}, STEPS "
        f"{list(solver.STEPS)}, MAX_ITER {solver.MAX_ITER}, WARMUP_ITERS {solver.WARMUP_ITERS}"
    )


def take_saved(cfg: CfgNode, saved: Mapping[str, Any], typed: set[str]) -> list[str]:
    """Give every key that the command line does not set the value of the run to be resumed.

    So options and overlays of weights need not be repeated. Returns the keys whose value in ``cfg`` differed.
    """
    changed = []
    for key, value in saved.items():
        node: Any = cfg
        *above, name = key.split(".")
        for part in above:
            node = node.get(part, {}) if isinstance(node, CfgNode) else {}
        if key in typed or key == "MODEL.DEVICE" or name not in node or _trains_the_same(node[name], value):
            continue
        set_value(cfg, key, value, f"{cfg.OUTPUT_DIR}/config.yaml")
        changed.append(key)
    return changed


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], file: str) -> None:
    """Name the first setting of a resumed run that differs from what it was begun with in a `UserError`."""
    for key, value in now.items():
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_ON_RESUME)
        if key in saved and not free and not _trains_the_same(saved[key], value):
            raise UserError(
                f"{file} was begun with {key} {saved[key]!r}, but now it is {value!r}: that is another "
                "training; give the same value, or leave it out, or choose another OUTPUT_DIR to start afresh"
            )


def _trains_the_same(a: Any, b: Any) -> bool:
    return same(a, b) or (a in BATCH_NORMS and b in BATCH_NORMS)
