"""Evaluation of models on labelled items: metrics with confidence intervals, model comparison and learning curves."""
