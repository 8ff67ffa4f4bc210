"""Finer maps: the last stages of a network at stride 1, as the reference's ResNets keep them."""

from __future__ import annotations

import torch
from torch import nn

from automix_transfer.errors import UserError

OUTPUT_STRIDES = (32, 16, 8)


@torch.no_grad()
def set_output_stride(encoder: nn.Module, image_size: int, output_stride: int) -> nn.Module:
    """Set to 1 every stride that would coarsen the map beyond ``output_stride``, in place; dilation stays.

    Raises:
        UserError: the stride is not 32, 16 or 8, or the encoder has a strided layer of another kind.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(
            f"output stride {output_stride} is unknown; choose one of {', '.join(map(str, OUTPUT_STRIDES))}"
        )
    coarse: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple) -> None:
        if _stride(module) > 1 and round(image_size / inputs[0].shape[-2]) >= output_stride:
            coarse.append(name)

    modules = dict(encoder.named_modules())
    # Whatever strides over an input that is already as coarse as wanted has to stop; one probe of the
    # unchanged network tells them all.
    handles = [
        module.register_forward_pre_hook(lambda m, inputs, name=name: look(name, m, inputs))
        for name, module in modules.items()
        if _stride(module) > 1
    ]
    parameter = next(encoder.parameters())
    try:
        encoder.eval()(torch.zeros(1, 3, image_size, image_size).to(parameter))
    finally:
        for handle in handles:
            handle.remove()
    for name in coarse:
        module = modules[name]
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        # the shortcut of ResNet-D: at stride 1 it does not pool at all
        elif isinstance(module, nn.AvgPool2d):
            encoder.set_submodule(name, nn.Identity())
        else:
            raise UserError(
                f"{type(encoder).__name__}'s layer '{name}' ({type(module).__name__}) has a stride that "
                "cannot be removed; leave the output stride as it is"
            )
    return encoder


def _stride(module: nn.Module) -> int:
    stride = 1 if list(module.children()) else getattr(module, "stride", 1)
    stride = stride[0] if isinstance(stride, tuple) else stride
    return stride if isinstance(stride, int) else 1
