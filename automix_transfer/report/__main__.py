"""``automix-transfer report``."""

from automix_transfer.errors import run_script
from automix_transfer.report.cli import main

if __name__ == "__main__":
    run_script(main)
