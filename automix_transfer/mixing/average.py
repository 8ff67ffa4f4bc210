"""A moving average of the trained weights beside any method: the EMA of Table 12, which DeiT evaluates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from automix_transfer.mixing.automix.momentum import momentum_at, momentum_update, warmed_up
from automix_transfer.mixing.base import Method, StepOutput
from automix_transfer.mixing.draw import Rng
from automix_transfer.models.encoders import EncoderInfo


class Averaged(Method):
    """Another method, with one more encoder ``ema``: after each step θ_ema ← m·θ_ema + (1-m)·θ, BatchNorm's
    statistics likewise.

    It takes part in nothing: losses, draws and gradients are those of the method alone. Costs the memory of
    the weights and, a step, one pass over them.

    Args:
        method: its first encoder with gradients is what is averaged (AutoMix: q).
        decay: m, in [0, 1).
        decay_end: m at the end of a half cosine from ``decay``, Eq. 12's schedule; None: m stays.
        inference: the average is the encoder for inference; otherwise it comes last.
        warmup: m ← min(m, t / (t + 9)) after t steps, so that the average is never older than a tenth of the
            training.
    """

    def __init__(
        self,
        method: Method,
        decay: float,
        inference: bool = True,
        warmup: bool = False,
        decay_end: float | None = None,
    ) -> None:
        super().__init__()
        self.method, self.decay, self.inference, self.warmup, self.steps = method, decay, inference, warmup, 0
        self.decay_end = decay if decay_end is None else decay_end
        self.average = copy.deepcopy(self.trained).requires_grad_(False)

    @property
    def trained(self) -> nn.Module:
        """The encoder that is averaged."""
        return next(
            e for e in self.method.encoders().values() if any(p.requires_grad for p in e.parameters())
        )

    def prepare(self, info: EncoderInfo) -> None:
        self.method.prepare(info)

    def view_transforms(self) -> Sequence[Callable[[Any], Any]]:
        return self.method.view_transforms()

    def weigh_classes(self, weights: Tensor) -> None:
        self.method.weigh_classes(weights)

    def forward(self, images: Tensor, labels: Tensor, rng: Rng = None) -> StepOutput:
        return self.method(images, labels, rng)

    def after_step(self, progress: float) -> None:
        self.method.after_step(progress)
        self.steps += 1
        m = momentum_at(progress, self.decay, self.decay_end)
        if self.warmup:
            m = warmed_up(m, self.steps)
        momentum_update(self.average, self.trained, m, buffers="ema")

    def encoders(self) -> dict[str, nn.Module]:
        own, others = {"ema": self.average}, self.method.encoders()
        return {**own, **others} if self.inference else {**others, **own}

    def parameter_groups(self) -> Iterable[dict]:
        for group in self.method.parameter_groups():
            yield {**group, "params": [(f"method.{name}", parameter) for name, parameter in group["params"]]}

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = int(state["steps"])


def method_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of the method alone, from the state of a method with or without a moving average."""
    if not any(key.startswith("average.") for key in state):
        return state
    return {key.removeprefix("method."): value for key, value in state.items() if key.startswith("method.")}
