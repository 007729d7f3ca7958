"""The embedded engines: how each is laid out, started and asked whether it is well."""
