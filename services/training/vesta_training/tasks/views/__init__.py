"""Augmented views of images, their cached feature maps, and the fit of heads on them, which detection and segmentation share."""
