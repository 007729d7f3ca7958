"""The pretrained backbone, and the cache of its image embeddings (features)."""
