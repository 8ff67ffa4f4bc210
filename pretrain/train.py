"""Pretrain an encoder on labelled images by any method: vanilla, mixup, cutmix, automix.

The set-up of the paper's tables lies in pretrain/configs/; the head of each file names the cell, the number to expect and the command.
"""

from automix_transfer.errors import run_script
from automix_transfer.training.cli import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__))
