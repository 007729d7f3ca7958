"""The serving service: deploys models on Triton, serves Predict, scores datasets, and stores the prediction log."""
