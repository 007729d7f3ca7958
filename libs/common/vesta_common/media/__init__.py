"""Images and what is said of them: decoded safely, checked, hashed."""
