"""The old name of ``automix-transfer data pack``, see `shards.packing`."""

from automix_transfer.data.shards.packing import main
from automix_transfer.errors import run_old_module

if __name__ == "__main__":
    run_old_module("data pack", main)
