"""What is compared: names, seeds, differences, and text in tables."""
