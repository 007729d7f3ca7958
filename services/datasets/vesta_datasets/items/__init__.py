"""Domain rules of items: annotations, splits, near-duplicates, filters. Pure functions."""
