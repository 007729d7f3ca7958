"""gRPC, one file a service: check, call, answer."""
