"""Changing the feature maps of one layer on the way through a network, without changing the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.models.taps import find_layer


@contextmanager
def replaced_output(encoder: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, submodule ``layer`` of ``encoder`` gives ``change(output)`` in place of its output.

    Raises:
        UserError: the layer's output is no tensor.
    """

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise UserError(f"feature layer '{layer}' gives {type(output).__name__}, not a tensor; choose another layer")
        return change(output)

    handle = find_layer(encoder, layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
