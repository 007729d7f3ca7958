"""Model versions brought to Triton and kept there."""
