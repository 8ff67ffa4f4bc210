"""Detect objects in images: automix-transfer detect predict."""

from automix_transfer.commands.detect_predict import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
