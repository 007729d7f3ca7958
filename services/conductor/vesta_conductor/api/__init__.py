"""The conductor's gRPC services, one file per resource."""
