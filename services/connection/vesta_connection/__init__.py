"""The connection service: imports media from sources, decodes them safely, stores each once, and records their provenance."""
