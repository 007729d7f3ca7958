"""The call pipeline from both APIs (REST and gRPC) to the backend services."""
