"""`vesta-install` of a bundle: it needs Python 3.9 and nothing else, and is packed into one file."""
