"""What a command line compares: names and seeds."""
