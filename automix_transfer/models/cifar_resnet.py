"""The CIFAR ResNets of He et al. (2016), section 4.2.

Their depth is 6n + 2, their widths are 16, 32, 64, their shortcuts have no parameters (option A): one that
halves the resolution takes every second pixel and pads the new channels with zeros, half on each side. Keys
are those of the widely shared CIFAR-10 weights: conv1, bn1, layer1-3, linear.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.errors import UserError


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut; (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class CifarResNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, K), or to features (N, 64) where K = 0; meant for 32×32 pixels."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes) if num_classes else nn.Identity()
        self.num_features = 64
        self.feature_info = [
            {"module": f"layer{i + 1}", "num_chs": 16 << i, "reduction": 1 << i} for i in range(3)
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def cifar_resnet(name: str, num_classes: int) -> CifarResNet:
    """Build ``cifar_resnet20``, ``cifar_resnet56``, ... ; the depth must be 6n + 2.

    Raises:
        UserError: another depth.
    """
    match = re.fullmatch(r"cifar_resnet(\d{1,4})", name)
    depth = int(match[1]) if match else 0
    if depth < 8 or depth % 6 != 2:
        raise UserError(f"encoder '{name}' is unknown; CIFAR ResNets have depth 6n + 2, as cifar_resnet20")
    return CifarResNet((depth - 2) // 6, num_classes)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1))
    )
