"""Triton: its client, its model repository, its replicas."""
