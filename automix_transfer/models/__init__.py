"""Encoders by name, their feature taps, and weights from files."""

from automix_transfer.models.encoders import EncoderInfo, create_encoder, feature_layer
from automix_transfer.models.taps import features
from automix_transfer.models.weights import LoadReport, load_encoder, load_into
from automix_transfer.models.weights_file import Weights, read_weights

__all__ = [
    "EncoderInfo",
    "LoadReport",
    "Weights",
    "create_encoder",
    "feature_layer",
    "features",
    "load_encoder",
    "load_into",
    "read_weights",
]
