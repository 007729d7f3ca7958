"""Where media come from: folders, buckets and web servers, read within an allow-list."""
