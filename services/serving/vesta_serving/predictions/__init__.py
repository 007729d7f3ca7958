"""Predictions of images: from pixels to labels, and the prediction log."""
