"""Observes the state of a Loop and executes the commands that reconciliation returns."""
