"""Mix a training split offline by SuperMix: automix-transfer supermix."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("supermix")
