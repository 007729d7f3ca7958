"""PostgreSQL and S3."""
