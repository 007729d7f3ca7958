"""What comes in: media, accepted answers and predictions, each kept with its item."""
