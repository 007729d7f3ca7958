"""Fine-tuning of the whole network of a detector, starting from a head that was fitted on cached feature maps."""
