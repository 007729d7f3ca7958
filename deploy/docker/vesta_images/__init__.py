"""The container images of the platform: their contents, and how they are built, packed and loaded. Uses only the standard library."""
