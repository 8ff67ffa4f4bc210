"""Pretrain an encoder on labelled images by any method: vanilla, automix, or any mixup that the paper
compares it with.

The set-up of the paper's tables lies in recipes (--list shows them); the head of each file names the cell,
the number to expect and the command.
"""

from automix_transfer.errors import run_script
from automix_transfer.training.cli import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__, "pretrain"))
