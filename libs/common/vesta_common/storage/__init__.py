"""PostgreSQL and S3 clients, and protection against full disks."""
