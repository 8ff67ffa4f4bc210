"""Weakly supervised localization: automix-transfer localize."""

from automix_transfer.commands.localize import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
