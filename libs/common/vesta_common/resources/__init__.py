"""What every resource has: names, pages, etags, filters, masks, idempotent creation."""
