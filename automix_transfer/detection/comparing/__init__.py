"""Backbones compared by detection."""
