"""How deep each parameter of an encoder lies, as timm groups them for rates that fall with depth."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from automix_transfer.errors import UserError

#: of ResNets that are not timm's: torchvision's and those for CIFAR
STEM, STAGES, BLOCKS = r"^(?:conv1|bn1)\.", r"^(?:layer|block)(\d+)", r"^(?:layer|block)(\d+)\.(\d+)"


def layers_by_depth(encoder: nn.Module, key: str, coarse: bool = False) -> dict[str, int]:
    """Name of each parameter -> its layer from 0, the stem; the classifier is in the last one.

    Layers are those of timm's ``group_matcher``: blocks of ResNets and of transformers; ``coarse``: stages of
    ResNets.

    Raises:
        UserError: the network's layers are not known, so the setting ``key`` cannot be met.
    """
    matcher = getattr(encoder, "group_matcher", None)
    if matcher is None and not (hasattr(encoder, "layer1") or hasattr(encoder, "block1")):
        raise UserError(
            f"{key} needs the depth of each layer, which is not known of {type(encoder).__name__}; choose "
            "another encoder, e.g. resnet50 or deit_small_patch16_224, or leave the setting out"
        )
    own = {"stem": STEM, "blocks": STAGES if coarse else BLOCKS}
    return group_parameters(encoder, matcher(coarse=coarse) if matcher else own, reverse=True)
