"""Class maps of networks, and score maps from files."""
