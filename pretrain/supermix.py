"""Mix a training split offline by SuperMix: automix-transfer supermix."""

from automix_transfer.commands.write_supermix import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
