"""Readers and writers of dataset archives, one module per layout."""
