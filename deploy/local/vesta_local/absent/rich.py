"""Hides rich from services, as in their images, which do not have it: structlog would import it, which costs 5 MiB per process."""

raise ImportError("services do not have rich")
