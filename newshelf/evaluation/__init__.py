"""Splits, metrics, baselines and reports; knows nothing of torch."""
