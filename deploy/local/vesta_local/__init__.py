"""Vesta on one machine: the embedded engines and every service as processes, kept by supervisord."""
