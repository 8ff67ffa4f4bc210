"""A loss of several terms whose graphs are walked one after the other, so that only one of them holds
activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.mixing.precision import full_precision, in_float16


class FreedLoss:
    """The sum of terms that share nothing but parameters.

    The gradients of each term are taken as it is added, which frees its graph, and handed out when the sum
    itself goes backward, multiplied by whatever reaches it then (loss scale, accumulation). The sum's
    gradients are those of one graph over all terms; memory holds the activations of one term instead of all,
    beside one set of gradients.

    Off under float16 autocast, where gradients need the scaler's factor on their whole way, and where no
    gradient is wanted: then the terms are merely summed.

    Args:
        parameters: all that the terms train.
        early: False keeps every graph until the sum goes backward (DDP can then send gradients while others
            are computed).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], early: bool = True) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.early = early and torch.is_grad_enabled()
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)
        self.sum: Tensor | None = None

    def add(self, *terms: Tensor) -> None:
        """Add scalars that share a graph; where it is walked at once, they can take part in nothing else
        afterwards."""
        device = terms[0].device.type
        walked = self.early and not in_float16(device) and any(term.requires_grad for term in terms)
        if walked:
            with full_precision(device):  # each backward operation takes its forward operation's precision
                found = list(
                    torch.autograd.grad(
                        [term for term in terms if term.requires_grad], self.parameters, allow_unused=True
                    )
                )
            for number in reversed(range(len(found))):
                old, new = self.gradients[number], found.pop()  # each is let go once it is added
                # not in place: two parameters may have been given one tensor
                self.gradients[number] = old if new is None else new if old is None else old + new
        for term in terms:
            term = term.detach() if walked else term
            self.sum = term if self.sum is None else self.sum + term

    def total(self) -> Tensor:
        """The scalar to call ``backward`` on, once."""
        assert self.sum is not None, "a loss without terms"
        pairs = [(p, g) for p, g in zip(self.parameters, self.gradients, strict=True) if g is not None]
        if not pairs:
            return self.sum
        handed_out: Tensor = _HandOut.apply([g for _, g in pairs], *(p for p, _ in pairs))  # type: ignore[no-untyped-call]
        self.gradients = []
        return self.sum + handed_out


class _HandOut(torch.autograd.Function):
    """Zero, whose gradient with respect to the parameters is what was computed before."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError(
                "backward a second time through a loss whose graphs are freed; set early_backward=False for "
                "that"
            )
        gradients, ctx.gradients = ctx.gradients[::-1], None
        return None, *(gradients.pop() * factor for _ in range(len(gradients)))
