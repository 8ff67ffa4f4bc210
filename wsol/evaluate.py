"""Weakly supervised localization: automix-transfer localize."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("localize")
