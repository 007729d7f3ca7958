"""What Projects hold, and their deletion."""
