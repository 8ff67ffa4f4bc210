"""Fine-tune an encoder on CUB-200, FGVC-Aircraft or your own folders, by any method, in the protocol of the
paper's Table 5.

encoder.weights=FILE starts from a checkpoint or export of ours, or from torchvision's or timm's weights on
disk: every key of the backbone must fit, and the classifier starts at random (encoder.classifier=keep loads
it too). Without it, training is from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence

from automix_transfer.commands.pretrain import build_parser, run
from automix_transfer.recipes.find import PROTOCOL


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser("finetune", __doc__)
    return run(parser.parse_intermixed_args(arguments), "finegrained", PROTOCOL)
