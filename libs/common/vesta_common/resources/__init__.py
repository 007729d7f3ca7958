"""Common behaviour of resources: names, pagination, etags, filters, field masks, idempotent creation."""
