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
        UserError: the layer's output is no tensor, or the layer did not run: mixing would have been skipped
            without a word.
    """
    ran = [False]

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        ran[0] = True
        if not isinstance(output, Tensor):
            raise UserError(
                f"feature layer '{layer}' gives {type(output).__name__}, not a tensor; choose another layer"
            )
        return change(output)

    handle = find_layer(encoder, layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if not ran[0]:
        raise UserError(not_seen(layer, encoder))


def not_seen(layer: str, encoder: nn.Module) -> str:
    """What to say where a forward pass went past a hook."""
    return (
        f"layer '{layer}' did not show up in {type(encoder).__name__}'s forward pass; choose a layer on its "
        "path, and leave train.compile=false, because compiled networks pass over the hooks that this method "
        "reads features by"
    )
