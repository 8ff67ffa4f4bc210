"""Fine-tune an encoder: automix-transfer finetune."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("finetune")
