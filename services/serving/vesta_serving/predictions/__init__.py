"""Predictions for images, and the prediction log."""
