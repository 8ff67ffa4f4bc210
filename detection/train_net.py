"""Train and evaluate a detector: automix-transfer detect."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("detect", "train")
