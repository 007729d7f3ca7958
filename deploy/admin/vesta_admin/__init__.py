"""Prepares the engines for the services: database, extensions, buckets, topics, migrations."""
