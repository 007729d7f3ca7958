"""Vesta's datasets service: items, taxonomies, snapshots, and the choice of what to label next."""
