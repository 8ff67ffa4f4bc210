"""Data sets by name in Detectron2's catalog, and parts of them."""
