"""Compare backbones by what they detect: automix-transfer detect compare."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("detect", "compare")
