"""Recipes: every YAML, by bare name."""
