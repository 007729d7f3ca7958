"""Domain rules of items: annotations, decisions, splits, near-duplicates, filters. Pure functions."""
