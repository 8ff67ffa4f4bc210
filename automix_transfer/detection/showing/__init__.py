"""Detections of trained runs, as pictures and files."""
