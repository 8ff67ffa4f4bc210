"""What a network is worth beyond its top-1: accuracy by class, accuracy on mixed samples, the health of masks."""
