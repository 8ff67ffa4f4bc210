"""Processes: one a GPU, started by torchrun; everything here is a no-op in a single process.

DistributedDataParallel is built over the whole method, and as it usually does, at the start of every
step rank 0's buffers (BatchNorm statistics of all encoders) overwrite the others'. That is what makes the
state of rank 0, which the checkpoint holds, the complete state of the run, so a resumed run repeats an
uninterrupted one. A moving-average copy of an encoder has no gradient and is not reduced; it stays equal over
the ranks because it is computed from parameters that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from automix_transfer.console import say
from automix_transfer.errors import UserError
from automix_transfer.training.settings import TrainConfig

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: rank in [0, size), and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print ``text``, once for all processes; nothing where it is empty."""
        if self.main:
            say(text)


def wrap(method: nn.Module, world: World, sync_batchnorm: bool = False) -> nn.Module:
    """The method behind DistributedDataParallel, or itself in a single process. Train through what is
    returned."""
    if world.size == 1:
        return method
    if sync_batchnorm:
        # timm's: torch's loses the activation of layers that are norm and activation in one
        convert_sync_batchnorm(method)
    ids = [world.device.index] if world.device.type != "cpu" else None
    return DistributedDataParallel(method, device_ids=ids)


def check_world(config: TrainConfig, world: World) -> None:
    """Settings that these processes cannot have; raises `UserError` naming the key."""
    if config.sync_batchnorm and world.size > 1 and world.device.type == "cpu":
        raise UserError(
            f"train.sync_batchnorm=true works on GPUs only, and these {world.size} processes are on the CPU; "
            "set it to false"
        )


def shares(config: TrainConfig, world: World) -> str:
    """How a step's images are dealt out, in words; empty where one process takes them in one pass."""
    if world.size * config.accumulate == 1:
        return ""
    images = config.batch_size // (world.size * config.accumulate)
    parts = [
        f"{number} {name}{'es' if number > 1 else ''}"
        for number, name in ((world.size, "process"), (config.accumulate, "pass"))
    ]
    return (
        f"a step is {config.batch_size} images = {parts[0]} x {parts[1]} x {images}, as train.batch_size "
        f"says; BatchNorm's statistics and the draws of mixing are of {images} images"
    )


def agree(flag: int, world: World) -> int:
    """The largest ``flag`` over the ranks; over gloo on the CPU, so that no GPU has to be waited for."""
    return int(largest(flag, world))


def largest(value: float, world: World) -> float:
    """The largest ``value`` over the ranks, over gloo."""
    if world.size == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(held, dist.ReduceOp.MAX)
    return float(held)


def sum_over_ranks(value: Tensor, world: World) -> Tensor:
    """The sum of a CPU tensor over the ranks."""
    if world.size > 1:
        dist.all_reduce(value)
    return value


def gather(value: T, world: World) -> list[T]:
    """What each rank holds, by rank; any object that can be pickled, over gloo."""
    if world.size == 1:
        return [value]
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, value)
    return found


def broadcast_buffers(method: nn.Module, world: World) -> None:
    """Give every rank the buffers of rank 0, so that all evaluate one and the same network."""
    if world.size > 1:
        for buffer in method.buffers():
            dist.broadcast(buffer, src=0)
