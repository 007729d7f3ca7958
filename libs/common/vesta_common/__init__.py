"""The plumbing every Vesta service shares. It knows no domain."""
