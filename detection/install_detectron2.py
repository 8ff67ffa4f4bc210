"""Install Detectron2: automix-transfer install-detectron2."""

from automix_transfer.commands.install_detectron2 import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
