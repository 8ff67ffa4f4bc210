"""Backbones and heads that are registered with Detectron2."""
