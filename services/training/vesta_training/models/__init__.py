"""Model files, and the registry's rules about keeping and deleting them."""
