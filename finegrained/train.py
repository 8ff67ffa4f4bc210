"""Fine-tune an encoder: automix-transfer finetune."""

from automix_transfer.commands.finetune import main
from automix_transfer.errors import run_script

if __name__ == "__main__":
    run_script(main)
