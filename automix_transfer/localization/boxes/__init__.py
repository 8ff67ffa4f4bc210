"""IoU of every threshold's box, exact and fast."""
