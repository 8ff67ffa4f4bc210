"""Mixing policies, one a file."""
