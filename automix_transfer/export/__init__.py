"""Checkpoint -> torchvision, timm, safetensors, a Hugging Face folder, ONNX: each with key table and proof.

Detectron2's exporter is in `automix_transfer.detection.weights.exporter`.
"""

from automix_transfer.export.proof import Proof
from automix_transfer.export.run import EXPORTERS, Exporter, export

__all__ = ["EXPORTERS", "Exporter", "Proof", "export"]
