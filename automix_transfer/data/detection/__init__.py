"""Readers of VOC and COCO annotations."""
