"""Decides the next step of a Loop from its policy and its actual state. Pure."""
