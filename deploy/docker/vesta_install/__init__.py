"""`vesta-install` of a bundle. It requires only Python 3.9, and is packed into one file."""
