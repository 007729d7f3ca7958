"""The search index: binary codes of embeddings, and the search for the nearest codes. Pure."""
