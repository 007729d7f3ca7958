"""Recipes, runs, models and studies in PostgreSQL."""
