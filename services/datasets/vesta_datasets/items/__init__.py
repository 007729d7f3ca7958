"""Rules about items: annotations, decisions, splits, near-duplicates, filters. Pure."""
