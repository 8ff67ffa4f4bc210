"""Train and evaluate a detector: automix-transfer detect."""

from automix_transfer.commands.detect import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
