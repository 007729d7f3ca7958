"""OpenAPI 3.1 of every RPC that HTTP can reach."""
