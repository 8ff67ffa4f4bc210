"""Export to timm: a plain state dict that ``timm.create_model(NAME, checkpoint_path=FILE)`` loads.

Key table: our encoders are timm's own networks, so the keys are timm's. torchvision's ResNet family has the
same names. What timm cannot build by name (resnet10_32 and CIFAR stems) is its ResNet class all the same, and
loads through our `create_encoder`.
"""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import load_checkpoint
from timm.models.resnet import ResNet

from automix_transfer.export.proof import Loaded, layers_of, module_taps, same_values
from automix_transfer.export.source import Source, refuse
from automix_transfer.io import save_torch
from automix_transfer.models.encoders import size_option


def export_timm(source: Source, output: Path) -> Loaded:
    """Write ``output`` and load it back into the network that timm builds.

    Raises:
        UserError: timm has no such network.
    """
    info, notes = source.info, []
    name = source.resnet or info.name
    by_name = timm.is_model(name) and info.stem == "imagenet"
    if not by_name and not isinstance(source.encoder, ResNet):
        raise refuse(
            source,
            "timm",
            "timm has no such network",
            "torchvision or --to safetensors" if info.name.startswith("torchvision/") else "safetensors",
        )
    state = {key: value.clone() for key, value in source.encoder.state_dict().items()}
    save_torch(output, state)
    if by_name:
        size = size_option(name, info.image_size)
        network = timm.create_model(
            name, pretrained=False, num_classes=info.num_classes, checkpoint_path=str(output), **size
        )
        words = (
            f"timm.create_model('{name}', num_classes={info.num_classes}, checkpoint_path=FILE"
            + "".join(f", {key}={value}" for key, value in size.items())
            + ")"
        )
    else:
        network = info.build()
        load_checkpoint(network, str(output), strict=True)
        words = (
            f"timm.models.load_checkpoint(automix_transfer.models.create_encoder('{info.name}', "
            f"{info.num_classes}, stem='{info.stem}'), FILE)"
        )
        notes.append(
            "timm cannot build this network by name; it is timm's ResNet class, built by create_encoder"
        )
    network.eval()
    layers = layers_of(network, info.image_size)
    return Loaded(
        words,
        same_values(state, network.state_dict()),
        len(network.state_dict()),
        module_taps(source.encoder, layers),
        module_taps(network, layers),
        tuple(notes),
    )
