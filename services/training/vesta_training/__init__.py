"""Training: from a snapshot and a recipe to a measured, calibrated model with its card."""
