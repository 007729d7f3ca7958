"""The gRPC services, one per module."""
