"""The inputs and outputs of a training, independent of its task."""
