"""Running means of an epoch's metrics, over all processes' images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, zip_longest

from torch import Tensor

from automix_transfer.training.distributed import World, gather


class Averages:
    """Running means since the epoch's start. Values stay on the device until they are asked for.

    Attributes:
        sums: name -> [sum, number], equal in all processes; part of the checkpoint.
    """

    def __init__(self, world: World, sums: Mapping[str, list[float]] | None = None) -> None:
        self.world = world
        self.sums = {name: list(pair) for name, pair in (sums or {}).items()}
        self._waiting: list[tuple[str, Tensor]] = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one value for each name."""
        self._waiting += [(name, value.detach()) for name, value in values.items()]

    def flush(self) -> None:
        """Fetch what still lies on the devices; every process must call it at the same step."""
        found = gather([(name, float(value)) for name, value in self._waiting], self.world)
        self._waiting.clear()
        # One at a time, in the order of steps and ranks: the sum's last bit must not depend on when it was
        # fetched, or a resumed run would differ.
        for name, value in filter(None, chain.from_iterable(zip_longest(*found))):
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1

    def means(self) -> dict[str, float]:
        """The mean of each metric since `reset`."""
        self.flush()
        return {name: total / count for name, (total, count) in self.sums.items()}

    def reset(self) -> None:
        """Start an epoch."""
        self.flush()
        self.sums.clear()
