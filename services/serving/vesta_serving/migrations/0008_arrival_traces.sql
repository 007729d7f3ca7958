-- The trace that brought an item, which its scoring goes on with: a W3C traceparent, or empty.
ALTER TABLE arrivals ADD COLUMN traceparent text NOT NULL DEFAULT '';
