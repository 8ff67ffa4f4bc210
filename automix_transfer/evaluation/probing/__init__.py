"""What the features of a fixed encoder are worth: a linear classifier and nearest neighbours on them."""
