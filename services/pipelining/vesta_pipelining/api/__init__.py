"""gRPC services, one file per service."""
