"""Pretrain an encoder: automix-transfer pretrain."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("pretrain")
