"""A service's process: started, watched, stopped."""
