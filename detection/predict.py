"""Detect objects in images: automix-transfer detect predict."""

from automix_transfer.cli import console

if __name__ == "__main__":
    console("detect", "predict")
