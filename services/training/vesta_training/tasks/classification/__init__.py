"""Single-label and multi-label classification: from labelled images to an evaluated model file."""
