"""All RPCs of the API contracts, read from the protobuf descriptors."""
