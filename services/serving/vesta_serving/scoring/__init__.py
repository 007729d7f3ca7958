"""Scores datasets and new items."""
