"""The conductor's gRPC services, one file a resource: check, call, answer."""
