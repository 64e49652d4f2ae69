"""Baseline and projection for the benchmarks of domain adaptation."""
