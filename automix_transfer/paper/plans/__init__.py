"""The runs that the paper's tables need: planned, timed and run."""
