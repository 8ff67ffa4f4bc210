"""What methods are made of: solvers, saliency, attention, boxes."""
