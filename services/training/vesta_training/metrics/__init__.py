"""Metrics of a model on labelled items, with intervals, and the comparison of two models."""
