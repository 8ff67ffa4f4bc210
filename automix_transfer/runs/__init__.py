"""Run folders, read back."""
