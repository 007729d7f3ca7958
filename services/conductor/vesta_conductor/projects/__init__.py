"""The child resources of Projects, and their deletion."""
