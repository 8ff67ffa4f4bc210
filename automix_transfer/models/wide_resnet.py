"""Wide ResNets of Zagoruyko and Komodakis (2016) for 32×32 and 64×64 images.

Their depth is 6n + 4, their widths are 16k, 32k, 64k (Table 1 there). A block normalises and activates
before each of its two 3×3 convolutions; one that changes the width has a 1×1 convolution of the activated
input as its shortcut.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from automix_transfer.errors import UserError


class WideBlock(nn.Module):
    """BN, ReLU, 3×3 convolution, twice, and a shortcut; (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        return kept + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, K); without a classifier (K = 0) to features (N, 64k).

    Layers 1 to 4 are the first convolution and the three groups, so layer 3 is the second group, at half the
    resolution.
    """

    def __init__(self, blocks: int, width: int, num_classes: int) -> None:
        super().__init__()
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.block1 = _group(widths[0], widths[1], blocks, stride=1)
        self.block2 = _group(widths[1], widths[2], blocks, stride=2)
        self.block3 = _group(widths[2], widths[3], blocks, stride=2)
        self.bn = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes) if num_classes else nn.Identity()
        self.num_features = widths[3]
        names = ("conv1", "block1", "block2", "block3")
        self.feature_info = [
            {"module": name, "num_chs": channels, "reduction": reduction}
            for name, channels, reduction in zip(names, widths, (1, 1, 2, 4), strict=True)
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(F.relu(self.bn(x)).mean(dim=(2, 3)))


def wide_resnet(name: str, num_classes: int) -> WideResNet:
    """Build ``wrn_28_8``, ``wrn_28_10``, ``wrn_40_4``, ... : depth 6n + 4, then the width factor k.

    Raises:
        UserError: another depth, or no width.
    """
    match = re.fullmatch(r"wrn_(\d{1,3})_(\d{1,2})", name)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (10 <= depth <= 160 and depth % 6 == 4 and 1 <= width <= 20):
        raise UserError(
            f"encoder '{name}' is unknown; wide ResNets have depth 6n + 4, at most 160, and a width of at "
            "most 20, as wrn_28_8"
        )
    return WideResNet((depth - 4) // 6, width, num_classes)


def _group(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        WideBlock(inputs, outputs, stride), *(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    )
