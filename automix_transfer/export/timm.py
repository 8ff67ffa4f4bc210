"""Export to timm: a plain state dict that ``timm.create_model(NAME, checkpoint_path=FILE)`` loads.

Key table: our encoders are timm's own networks, so the keys are timm's. torchvision's ResNet family has the
same names. What timm cannot build by name (resnet10_32 and CIFAR stems) is its ResNet class all the same, and
loads through our `create_encoder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.models import load_checkpoint
from timm.models.resnet import ResNet
from torch import nn

from automix_transfer.export.proof import Loaded, layers_of, loaded_back
from automix_transfer.export.source import Source, refuse
from automix_transfer.io import save_torch
from automix_transfer.models.encoders import size_option

#: fields of timm's ``pretrained_cfg`` by which images are fed to a network
INPUT = (
    *("input_size", "test_input_size", "mean", "std", "interpolation"),
    *("crop_pct", "test_crop_pct", "crop_mode"),
)


def export_timm(source: Source, output: Path) -> Loaded:
    """Write ``output`` and load it back into the network that timm builds.

    Raises:
        UserError: timm has no such network.
    """
    info = source.info
    notes: tuple[str, ...] = ()
    name = source.resnet or info.name
    by_name = timm.is_model(name) and info.stem == "imagenet"
    if not by_name and not isinstance(source.encoder, ResNet):
        instead = "torchvision or --to safetensors" if info.name.startswith("torchvision/") else "safetensors"
        raise refuse(source, "timm", "timm has no such network", instead)
    save_torch(output, {key: value.clone() for key, value in source.encoder.state_dict().items()})
    if by_name:
        size = size_option(name, info.image_size)
        network = timm.create_model(
            name,
            pretrained=False,
            num_classes=info.num_classes,
            checkpoint_path=str(output),
            pretrained_cfg_overlay=(overlay := input_overlay(source, name)),
            **size,
        )
        if getattr(network, "pretrained_cfg", None):
            check_input(source, network)
        else:  # registered by somebody whose function does not pass timm's settings on
            notes = ("its function takes no pretrained_cfg, so timm cannot say how images are fed to it",)
        # without the overlay timm's transforms are those of its own weights
        more = "".join(f", {key}={value}" for key, value in size.items())
        more += f", pretrained_cfg_overlay={overlay}" if overlay else ""
        words = f"timm.create_model('{name}', num_classes={info.num_classes}, checkpoint_path=FILE{more})"
    else:
        network = info.build()
        load_checkpoint(network, str(output), strict=True)
        words = (
            f"timm.models.load_checkpoint(automix_transfer.models.create_encoder('{info.name}', "
            f"{info.num_classes}, stem='{info.stem}'), FILE)"
        )
        notes = (
            "timm cannot build this network by name; it is timm's ResNet class, built by create_encoder",
        )
    network.eval()
    return loaded_back(words, source.encoder, network, layers_of(network, info.image_size), notes)


def input_overlay(source: Source, name: str) -> dict[str, Any]:
    """What ``pretrained_cfg`` of timm's network ``name`` says otherwise of its input than is true here."""
    timms, own = timm.get_pretrained_cfg(name), source.encoder.pretrained_cfg
    found = {key: own.get(key) for key in INPUT}  # type: ignore[union-attr, operator]  # timm's dictionary
    return {key: value for key, value in found.items() if value != getattr(timms, key, None)}


def check_input(source: Source, network: nn.Module) -> None:
    """timm must feed ``network`` as the source is fed."""
    configs = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
        for model in (source.encoder, network)
        for found in (resolve_model_data_config(model, use_test_size=True),)
    ]
    if configs[0] != configs[1]:
        raise RuntimeError(f"timm would feed it {configs[1]} instead of {configs[0]}")
