"""Encoders by name and their feature taps."""

from automix_transfer.models.encoders import EncoderInfo, create_encoder, feature_layer
from automix_transfer.models.taps import features

__all__ = ["EncoderInfo", "create_encoder", "feature_layer", "features"]
