"""Learning rates as functions of the share of the run that is done: nothing has to be stored to resume."""

from __future__ import annotations

import math

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer

from automix_transfer.training.settings import ScheduleConfig


def build_schedule(
    config: ScheduleConfig, epochs: int, lr: float, final_lr: float | None = None
) -> ParamScheduler:
    """The rate as a function of progress in [0, 1): linear warm-up, then a cosine to ``final_lr``."""
    end = config.final_lr if final_lr is None else final_lr
    main: ParamScheduler = (
        CosineParamScheduler(lr, end) if config.name == "cosine" else ConstantParamScheduler(lr)
    )
    if config.warmup_epochs == 0:
        return main
    share = config.warmup_epochs / epochs
    warmup = LinearParamScheduler(min(config.warmup_lr, lr), lr)
    return CompositeParamScheduler(
        [warmup, main], lengths=[share, 1 - share], interval_scaling=["rescaled", "rescaled"]
    )


class LearningRates:
    """Sets the rate of each parameter group.

    It goes from ``lr_scale`` times the run's rate down to ``lr_end`` times that (None: as the run).
    """

    def __init__(self, optimizer: Optimizer, config: ScheduleConfig, epochs: int, lr: float) -> None:
        self.optimizer, self.epochs = optimizer, epochs
        # until where rates change with every step
        self.by_step = 1.0 if config.by == "step" else config.warmup_epochs / epochs
        self.schedules = []
        for group in optimizer.param_groups:
            scale, end = group["lr_scale"], group["lr_end"]
            final = config.final_lr * scale if end is None else end * scale * lr
            self.schedules.append(build_schedule(config, epochs, lr * scale, final))

    def set(self, progress: float) -> float:
        """Set the rates for the step that starts at ``progress`` in [0, 1); returns the first group's."""
        if progress >= self.by_step:
            progress = math.floor(progress * self.epochs + 1e-9) / self.epochs  # where its epoch began
        for group, schedule in zip(self.optimizer.param_groups, self.schedules, strict=True):
            group["lr"] = schedule(progress)
        return self.optimizer.param_groups[0]["lr"]
