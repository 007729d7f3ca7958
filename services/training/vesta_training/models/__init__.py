"""Model files: their format, their export, and the rules and jobs for their deletion."""
