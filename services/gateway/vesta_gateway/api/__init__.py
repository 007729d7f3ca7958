"""The gateway's own RPCs, one module per resource."""
