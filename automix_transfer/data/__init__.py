"""Data sets in their native layouts, transforms and loaders."""
