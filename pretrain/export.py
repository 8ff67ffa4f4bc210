"""Export a backbone: automix-transfer export."""

from automix_transfer.commands.export import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
