"""Process lifecycle of a service: startup, health monitoring, shutdown."""
