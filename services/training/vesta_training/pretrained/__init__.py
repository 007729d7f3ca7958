"""Imported pretrained detectors: their cards, the validation of their files in the sandbox, and the parts of their networks."""
