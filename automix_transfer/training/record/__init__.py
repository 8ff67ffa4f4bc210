"""What a run leaves: checkpoints, logs, results, pictures."""
