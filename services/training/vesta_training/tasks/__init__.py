"""What a training of any task is given and returns."""
