"""A resumed detector is the run that was begun: what it began with, and what it has still to make up for."""
