"""Backbones across tasks."""
