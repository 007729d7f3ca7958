"""Gives every test of the repository the real engines, and an API server."""

pytest_plugins = ["vesta_local.testing", "vesta_local.shared_fixtures", "vesta_cluster.testing"]
