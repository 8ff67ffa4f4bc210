"""Figures, tables and the one-file page of a folder of runs."""
