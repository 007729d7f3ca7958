"""The pipelining service: turns camera frames into observations, and sends uncertain frames to annotators."""
