"""Images and annotations: safe decoding, validation, hashing."""
