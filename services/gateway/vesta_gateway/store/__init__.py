"""The database layer: PostgreSQL, one module per resource. No other package contains SQL."""
