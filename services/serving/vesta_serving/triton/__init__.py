"""The Triton client, model repository and replicas."""
