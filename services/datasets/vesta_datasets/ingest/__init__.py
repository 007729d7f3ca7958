"""Ingest of media, accepted annotations and predictions into items."""
