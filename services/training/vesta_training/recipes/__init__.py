"""Recipes: every choice of a training, typed, with its reason; those that ship with the platform lie beside as YAML."""
