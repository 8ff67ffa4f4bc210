"""Gradient checkpointing: activations of timm's blocks are computed again in the backward pass, not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automix_transfer.errors import UserError


def checkpoint_blocks(encoder: nn.Module, name: str) -> None:
    """Let the blocks of a timm network keep their inputs only.

    Gradients are the same; a step takes about one forward pass more. Dropout and stochastic depth draw the
    same numbers again. `update_once` belongs to it wherever there are running statistics.

    Raises:
        UserError: the network called ``name`` cannot.
    """
    refusal = UserError(
        f"encoder '{name}' has no gradient checkpointing; set encoder.checkpointing=false, or choose an "
        "encoder of timm that has it, e.g. resnet50 or deit_small_patch16_224"
    )
    switch = getattr(encoder, "set_grad_checkpointing", None)
    if switch is None:
        raise refusal
    try:
        switch(True)
    except (AssertionError, NotImplementedError) as error:  # how timm says that a network cannot
        raise refusal from error
    if not any(getattr(module, "grad_checkpointing", False) for module in encoder.modules()):
        raise refusal


def update_once(network: nn.Module) -> None:
    """Keep BatchNorm layers from counting a batch again when a backward pass computes them again."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            once = _Once()
            module.register_forward_pre_hook(once.before)
            module.register_forward_hook(once.after, always_call=True)  # a repetition may end by an exception


class _Once:
    """A BatchNorm layer's two hooks: within a backward pass its running statistics stay as they are."""

    kept: tuple[float | None, torch.Tensor] | None = None

    def before(self, module: Any, _inputs: Any) -> None:
        if torch._C._current_graph_task_id() != -1:  # as torch's checkpoints ask whether they are in one
            self.kept = module.momentum, module.num_batches_tracked.clone()
            module.momentum = 0.0  # of the new batch; a repetition has to save the same tensors

    def after(self, module: Any, _inputs: Any, _output: Any) -> None:
        if self.kept is not None:
            module.momentum, count = self.kept
            module.num_batches_tracked.copy_(count)
            self.kept = None


@contextmanager
def unchecked(network: nn.Module) -> Iterator[None]:
    """Within the block, passes keep their activations: timm's checkpointed passes call a stage's blocks past
    the stage, so that its hooks would not run."""
    found = [module for module in network.modules() if getattr(module, "grad_checkpointing", False)]
    for module in found:
        module.grad_checkpointing = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in found:
            module.grad_checkpointing = True  # type: ignore[assignment]
