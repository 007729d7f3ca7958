"""Instance segmentation: objects with their pixels, learned as boxes with masks."""
