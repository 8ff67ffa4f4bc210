"""``automix-transfer evaluate``."""

from automix_transfer.errors import run_script
from automix_transfer.evaluation.cli import main

if __name__ == "__main__":
    run_script(main)
