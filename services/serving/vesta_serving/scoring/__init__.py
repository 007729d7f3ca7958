"""Scoring whole datasets and new items."""
