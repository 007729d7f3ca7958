"""The start from an imported pretrained detector: its network is frozen, its boxes are kept, and its classes are learned again."""
