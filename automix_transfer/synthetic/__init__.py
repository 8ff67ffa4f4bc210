"""The embedded data: rendered images in the layouts of real data sets."""
