"""Export a backbone: automix-transfer export."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("export")
