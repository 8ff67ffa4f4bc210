"""Pickles as data: arrays, tensors and plain containers are rebuilt, and nothing in the file runs."""
