"""Looks at a Loop's world, and carries out what was decided."""
