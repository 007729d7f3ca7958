"""Classification and multi-label classification: from labelled images to a measured model file."""
