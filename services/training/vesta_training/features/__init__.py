"""The frozen backbone and its embeddings of images, computed once and cached."""
