"""The REST door: HTTP to RPCs and back."""
