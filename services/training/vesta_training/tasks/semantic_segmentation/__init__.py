"""Semantic segmentation: the concept of each pixel, learned from cached feature maps of a frozen backbone."""
