"""Compare backbones by what they detect: automix-transfer detect compare."""

from automix_transfer.commands.detect_compare import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
