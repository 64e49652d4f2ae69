"""Simulated weeks of a shop that retrains, and trials of its gate."""
