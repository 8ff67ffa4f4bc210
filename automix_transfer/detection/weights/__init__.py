"""Weights for Detectron2: export, proof, checks."""
