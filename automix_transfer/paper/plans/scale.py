"""Shrinking a training by stated factors, to see a table's runs through in little time; `matching` marks what
comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from automix_transfer.errors import UserError
from automix_transfer.paper.references import Reference


@dataclass(frozen=True)
class Scale:
    """Factors of the epochs and of the training images of each class; 1 is the paper's."""

    epochs: float = 1.0
    data: float = 1.0

    @property
    def suffix(self) -> str:
        """What tells folders of another scale apart."""
        return "" if self == Scale() else f"-epochs{self.epochs:g}-data{self.data:g}"

    def overrides(self, reference: Reference) -> list[str]:
        """The settings of ``reference`` that this scale changes."""
        config, changed = reference.config, []
        epochs = int(config["train.epochs"])
        fewer = max(1, round(epochs * self.epochs))
        if fewer != epochs:
            changed.append(f"train.epochs={fewer}")
            if warmup := float(config.get("schedule.warmup_epochs") or 0):
                changed.append(f"schedule.warmup_epochs={warmup * fewer / epochs:.4g}")
        data = reference.data
        if self.data != 1 and data is not None:
            least = math.ceil(int(config["train.batch_size"]) / data.classes)  # a step needs a full batch
            changed.append(
                f"data.limit_per_class={max(least, round(self.data * data.train / data.classes), 1)}"
            )
        return changed


def parse_scale(text: str) -> Scale:
    """``0.01``, or ``epochs=0.05,data=0.1``.

    Raises:
        UserError: no number in (0, 1], or another name.
    """
    values: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        name, number = (name.strip(), number) if equals else ("", name)
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if name not in ("", "epochs", "data") or not 0 < factor <= 1:
            raise UserError(
                f"--scale {text} is not a factor; write e.g. 0.01, or epochs=0.05,data=0.1, each above 0 and "
                "at most 1"
            )
        values |= {key: factor for key in ([name] if name else ["epochs", "data"])}
    return Scale(**values)
