"""Linear heads on embeddings: fitting, cross-validation, calibration."""
