"""Detection: boxes, each with a concept, learned from cached feature maps of a frozen backbone."""
