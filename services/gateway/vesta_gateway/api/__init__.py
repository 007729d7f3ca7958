"""The gateway's own RPCs, a file a resource."""
