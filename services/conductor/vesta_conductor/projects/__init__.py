"""The contents of Projects, and their deletion."""
