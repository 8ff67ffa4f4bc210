"""python -m automix_transfer COMMAND: the same as automix-transfer COMMAND."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console()
