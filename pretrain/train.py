"""Pretrain an encoder on labelled images by any method: vanilla, mixup, cutmix, automix."""

from automix_transfer.errors import run_script
from automix_transfer.training.cli import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__))
