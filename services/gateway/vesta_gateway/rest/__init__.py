"""The REST API: transcoding between HTTP and RPCs."""
