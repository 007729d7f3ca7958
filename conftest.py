"""Gives every test of the repository the real engines."""

pytest_plugins = ["vesta_local.testing"]
