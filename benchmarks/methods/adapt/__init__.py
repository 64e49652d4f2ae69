"""Losses of domain adaptation that no training chooses, for comparison."""
