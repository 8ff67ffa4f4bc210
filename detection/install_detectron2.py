"""Install Detectron2: automix-transfer install-detectron2."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("install-detectron2")
