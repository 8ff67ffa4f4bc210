"""What the class token of a vision transformer attends to, read on the way, with fused attention or
without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.mixing.parts.hooks import not_seen
from automix_transfer.mixing.precision import full_precision


def attention_block(encoder: nn.Module) -> nn.Module:
    """The last self-attention of a timm vision transformer with a class token.

    Raises:
        UserError: the network has none; names what has.
    """
    blocks = getattr(encoder, "blocks", None)
    attention: Any = getattr(blocks[-1], "attn", None) if blocks else None
    has_token = getattr(encoder, "has_class_token", False)
    if not (has_token and hasattr(attention, "qkv") and hasattr(attention, "num_heads")):
        raise UserError(
            f"transmix needs the attention of a class token, which {type(encoder).__name__} does not have; "
            "choose a vision transformer of timm that has one (deit_small_patch16_224, ...), or a method "
            "without attention, e.g. method.name=mixup_cutmix or saliencymix"
        )
    return attention


@contextmanager
def class_attention(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass of ``encoder`` appends (N, patches): the class token's attention to
    the patches in the last block, the mean over heads, without gradient. It is computed again from the
    layer's own query and keys, for one query, which costs nothing beside the block and does not depend on how
    the block computes its attention."""
    attention: Any = attention_block(encoder)
    prefix = int(getattr(encoder, "num_prefix_tokens", 1))
    found: list[Tensor] = []

    def read(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        with torch.no_grad(), full_precision(output.device.type):
            count, tokens, _ = output.shape
            queries_keys_values = output.detach().float().reshape(count, tokens, 3, attention.num_heads, -1)
            query, key, _ = queries_keys_values.permute(2, 0, 3, 1, 4)
            query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
            scores = (query @ key.transpose(2, 3)).squeeze(2) * attention.scale
            found.append(scores.softmax(dim=-1).mean(dim=1)[:, prefix:])

    handle = attention.qkv.register_forward_hook(read)
    try:
        yield found
    finally:
        handle.remove()
    if not found:
        raise UserError(not_seen("attn.qkv of the last block", encoder))
