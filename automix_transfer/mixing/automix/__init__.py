"""AutoMix: the Mix Block, Algorithm 1, its options and presets."""
