"""What should happen next in a Loop, from what is wanted and what is. Pure."""
