"""Pretrain an encoder: automix-transfer pretrain."""

from automix_transfer.commands.pretrain import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
