"""Whole checkpoints: evaluation of a model with its city, baselines first."""
