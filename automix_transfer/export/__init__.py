"""Checkpoint -> torchvision, timm, safetensors, Detectron2: each a file with a key table, and a proof."""

from automix_transfer.export.proof import Proof
from automix_transfer.export.run import EXPORTERS, SUFFIXES, export

__all__ = ["EXPORTERS", "SUFFIXES", "Proof", "export"]
