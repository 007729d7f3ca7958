"""The conductor: keeps Projects and Loops, and turns each Loop by reconciling what is wanted with what is."""
