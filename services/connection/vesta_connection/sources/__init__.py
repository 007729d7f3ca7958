"""Reads sources of media: folders, buckets and web servers, restricted by an allow-list."""
