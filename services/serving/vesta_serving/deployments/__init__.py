"""Loads model versions into Triton and keeps them loaded."""
