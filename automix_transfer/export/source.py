"""The encoder that is exported, rebuilt from its file, with everything the exporters need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from automix_transfer.errors import UserError
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.models.timm_names import RESNETS
from automix_transfer.models.weights import LoadReport, rebuild
from automix_transfer.models.weights_file import read_weights


@dataclass(frozen=True)
class Source:
    """``encoder`` in eval mode on the CPU, what is known of it, and the file it came from."""

    encoder: nn.Module
    info: EncoderInfo
    path: Path
    sha256: str
    which: str | None
    step: int | None
    report: LoadReport
    training: Mapping[str, Any] = field(default_factory=dict)  # of a checkpoint of ours, see `Weights`

    @property
    def resnet(self) -> str | None:
        """The name in `RESNETS` that this encoder has in timm or torchvision; ``None`` for all others."""
        # timm's tags (resnet50.a1_in1k) name weights, not networks
        name = self.info.name.removeprefix("torchvision/").split(".")[0]
        return name if name in RESNETS and self.info.stem == "imagenet" else None


def open_source(
    path: str | Path,
    sha256: str,
    encoder_name: str | None = None,
    which: str | None = None,
    num_classes: int | None = None,
) -> Source:
    """Rebuild the encoder that ``path`` holds; all of `read_weights`' and `load_into`'s errors apply."""
    weights = read_weights(path, which)
    encoder, info, report = rebuild(weights, encoder_name, num_classes)
    return Source(encoder, info, Path(path), sha256, weights.which, weights.step, report, weights.training)


def refuse(source: Source, kind: str, reason: str, instead: str) -> UserError:
    """The error for an encoder that a kind of export cannot hold."""
    stem = " with the CIFAR stem" if source.info.stem == "cifar" else ""
    return UserError(
        f"{source.path}: encoder '{source.info.name}'{stem} cannot be exported to {kind}: {reason}; use --to "
        f"{instead}"
    )
