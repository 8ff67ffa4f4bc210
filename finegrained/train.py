"""Fine-tune an encoder on CUB-200, FGVC-Aircraft or your own folders, by any method, in the protocol of the
paper's Table 5.

encoder.weights=FILE starts from a checkpoint or export of pretrain/, or from torchvision's or timm's weights
on disk: every key of the backbone must fit, and the classifier starts at random (encoder.classifier=keep
loads it too). Without it, training is from scratch.
"""

from automix_transfer.errors import run_script
from automix_transfer.training.cli import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__, "finegrained", defaults=["procedures/finetune.yaml"]))
