"""Transfer learning with AutoMix: pretrain, export with proof, detect, localize, fine-tune."""

__version__ = "0.1.0"
