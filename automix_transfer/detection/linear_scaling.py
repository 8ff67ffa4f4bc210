"""One schedule for any number of GPUs, and a resumed run that trains what was begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from automix_transfer.errors import UserError

FREE_ON_RESUME = (
    "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_PERIOD",
    "DATALOADER.NUM_WORKERS",
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
    """Fit a schedule made for ``SOLVER.REFERENCE_WORLD_SIZE`` GPUs to ``world`` processes; returns what to
    print, "" where it stays.

    The batch of each process stays; so the total batch and with it the learning rate change by one factor,
    and everything that is counted
    in iterations by its inverse: images seen and rate per image stay. A reference of 0 is a schedule that is
        never scaled.

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
            f"{batch}; set it to the "
            "number of GPUs that the schedule was made for, or to 0 to leave the schedule as it is"
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
        "SOLVER.IMS_PER_BATCH "
        f"{solver.IMS_PER_BATCH}, BASE_LR {solver.BASE_LR:g}, STEPS {list(solver.STEPS)}, MAX_ITER "
        f"{solver.MAX_ITER}, "
        f"WARMUP_ITERS {solver.WARMUP_ITERS}"
    )


def take_saved(cfg: CfgNode, saved: Mapping[str, Any], typed: set[str]) -> list[str]:
    """Give every key that the command line does not set the value that the run to be resumed has (an option
    that is not repeated, its weights' overlay, whose weights need not be there any more); returns the keys
    whose value in ``cfg`` was another."""
    changed = []
    for key, value in saved.items():
        node: Any = cfg
        *above, name = key.split(".")
        for part in above:
            node = node.get(part, {})
        if (
            key in typed
            or key == "MODEL.DEVICE"
            or name not in node
            or same(node[name], value)
            or _equal_norms(node[name], value)
        ):
            continue
        node[name] = tuple(value) if isinstance(value, list) and isinstance(node[name], tuple) else value
        changed.append(key)
    return changed


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], file: str) -> None:
    """The first setting of a resumed run that differs from what it was begun with is named in a `UserError`."""
    for key, value in now.items():
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_ON_RESUME)
        if key in saved and not free and not same(saved[key], value) and not _equal_norms(saved[key], value):
            raise UserError(
                f"{file} was begun with {key} {saved[key]!r}, but now it is {value!r}: that is another "
                "training; "
                "give the same value, or leave it out, or choose another OUTPUT_DIR to start afresh"
            )


def _equal_norms(a: Any, b: Any) -> bool:
    return a in BATCH_NORMS and b in BATCH_NORMS


def same(a: Any, b: Any) -> bool:
    """Equal as configuration values; numbers to 4 digits, lists and tuples alike."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if (
        isinstance(a, bool)
        or isinstance(b, bool)
        or not (isinstance(a, (int, float)) and isinstance(b, (int, float)))
    ):
        return a == b
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-6)
