"""Linear heads on embeddings: fitting, cross-validation and calibration."""
