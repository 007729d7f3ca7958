"""gRPC servers and clients: addresses, admission, interceptors, health, validation."""
