"""A loss of several terms whose graphs are walked one by one, so that memory holds the activations of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.mixing.precision import full_precision, in_float16


class FreedLoss:
    """The sum of terms that share nothing but parameters.

    The gradients of a term are taken when it is added, which frees its graph. They are handed out when the
    sum goes backward, multiplied by whatever reaches it then (loss scale, accumulation). They are those of
    one graph over all terms; memory holds the activations of one term, beside one set of gradients.

    Terms are merely summed where no gradient is wanted, and under float16 autocast, whose loss scale must
    reach every operation.

    Args:
        parameters: all that the terms train.
        early: False keeps every graph until the sum goes backward.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], early: bool = True) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.device = self.parameters[0].device.type
        self.early = early and torch.is_grad_enabled() and not in_float16(self.device)
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)
        self.sum: Tensor | None = None
        self.idle: list[nn.Module] = []

    def add(self, *terms: Tensor) -> Tensor:
        """Add scalars that share a graph, and return the first's value; the graph may be gone afterwards."""
        wanted = [term for term in terms if term.requires_grad]
        walked = self.early and bool(wanted)
        if walked:
            with full_precision(self.device):  # a backward operation takes its forward operation's precision
                found = list(torch.autograd.grad(wanted, self.parameters, allow_unused=True))
            for number in reversed(range(len(found))):
                old, new = self.gradients[number], found.pop()  # each is let go once it is added
                # not in place: two parameters may have been given one tensor
                self.gradients[number] = old if new is None else new if old is None else old + new
        for term in terms:
            term = term.detach() if walked else term
            self.sum = term if self.sum is None else self.sum + term
        return terms[0].detach()

    def add_idle(self, module: nn.Module) -> None:
        """Give the parameters of a module that no term reaches a gradient of 0; DDP waits for one of each."""
        self.idle.append(module)

    def total(self) -> Tensor:
        """The scalar to call ``backward`` on, once."""
        assert self.sum is not None, "a loss without terms"
        pairs = [(p, g) for p, g in zip(self.parameters, self.gradients, strict=True) if g is not None]
        total = self.sum + sum(unused(module) for module in self.idle)
        if not pairs:
            return total
        parameters, self.gradients = [p for p, _ in pairs], []
        return total + _HandOut.apply([g for _, g in pairs], *parameters)  # type: ignore[no-untyped-call]


def unused(module: nn.Module) -> Tensor:
    """A zero that depends on every trained parameter of ``module``."""
    return 0 * sum(p.sum() for p in module.parameters() if p.requires_grad)  # type: ignore[return-value]


class _HandOut(torch.autograd.Function):
    """Zero, whose gradient with respect to the parameters is what was computed before."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("a FreedLoss goes backward once; with early=False its graphs are kept")
        gradients, ctx.gradients = ctx.gradients[::-1], None
        return None, *(gradients.pop() * factor for _ in range(len(gradients)))
