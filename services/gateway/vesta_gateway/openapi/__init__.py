"""OpenAPI 3.1 description of all RPCs with HTTP bindings."""
