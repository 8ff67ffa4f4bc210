"""Transfer learning with AutoMix: pretrain, export with proof, detect, localize, fine-tune."""

import sys

from automix_transfer.command_line import leave_current_folder

__version__ = "0.2.0"

if sys.argv[:1] == ["-m"]:  # python -m automix_transfer looks for what it runs; nothing else is imported yet
    leave_current_folder()
