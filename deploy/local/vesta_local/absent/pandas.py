"""Hides pandas from services, as in their images, which do not have it: pyarrow would import it, which costs 33 MiB per process.

This folder is in the module search path of the services, before the packages that development tools install.
"""

raise ImportError("services do not have pandas")
