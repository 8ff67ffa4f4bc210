"""From an experiment to everything that a run needs: data, encoder, method, optimizer, schedule, position."""
