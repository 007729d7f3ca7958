"""Infrastructure code that all Vesta services share. It contains no domain logic."""
