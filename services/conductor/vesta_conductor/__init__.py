"""The conductor: stores Projects and Loops, and reconciles the actual state of each Loop with its policy."""
