"""Vesta's training service: trains, calibrates and evaluates models from snapshots and recipes, and registers them."""
