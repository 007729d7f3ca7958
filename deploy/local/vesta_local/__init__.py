"""Vesta on one machine: runs the embedded engines and every service as processes under supervisord."""
