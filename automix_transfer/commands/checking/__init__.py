"""What a command asks of others before they are started."""
