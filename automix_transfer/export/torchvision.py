"""Export to torchvision: a plain state dict that torchvision's own ResNet loads with ``strict=True``.

Key table: none is needed, timm's ResNet family has torchvision's names. resnext101_32x4d has no function in
torchvision but is its ResNet class with groups 32 and width 4; networks that came as ``torchvision/NAME`` go
back as they are.
"""

from __future__ import annotations

from pathlib import Path

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from automix_transfer.export.proof import Loaded, layers_of, loaded_back
from automix_transfer.export.source import RESNETS, Source, refuse
from automix_transfer.io import load_torch, save_torch


def export_torchvision(source: Source, output: Path) -> Loaded:
    """Write ``output`` and load it back into the network that torchvision builds.

    Raises:
        UserError: torchvision has no such network.
    """
    network, words = _build(source)
    save_torch(output, {key: value.clone() for key, value in source.encoder.state_dict().items()})
    network.load_state_dict(load_torch(output), strict=True)
    layers = layers_of(source.encoder, source.info.image_size)
    return loaded_back(
        f"{words}.load_state_dict(torch.load(FILE), strict=True)", source.encoder, network, layers
    )


def _build(source: Source) -> tuple[nn.Module, str]:
    """The network that torchvision builds for ``source``, and the expression that builds it."""
    classes = source.info.num_classes
    known = torchvision.models.list_models(module=torchvision.models)
    name = source.resnet
    if name is None and source.info.name.startswith("torchvision/"):
        name = source.info.name.removeprefix("torchvision/")
    if name is None:
        raise refuse(
            source,
            "torchvision",
            f"torchvision has no such network (it has {', '.join(RESNETS)} with the ImageNet stem)",
            "timm or --to safetensors",
        )
    outputs = classes or 1  # torchvision always builds a classifier
    if name in known:
        network = torchvision.models.get_model(name, weights=None, num_classes=outputs)
        words = f"torchvision.models.{name}(num_classes={outputs})"
    else:
        block, blocks, groups, width = RESNETS[name]
        network = ResNet(
            BasicBlock if block == "BasicBlock" else Bottleneck,
            list(blocks),
            outputs,
            groups=groups,
            width_per_group=width,
        )
        words = (
            f"torchvision.models.ResNet({block}, {[*blocks]}, {outputs}, {groups=}, width_per_group={width})"
        )
    if not classes:
        network.fc = nn.Identity()  # the file has no classifier
        words += " with fc = Identity()"
    return network.eval(), words
