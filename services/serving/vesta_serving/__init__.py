"""The serving service: puts models to work on Triton, answers Predict, scores whole datasets, keeps the prediction log."""
