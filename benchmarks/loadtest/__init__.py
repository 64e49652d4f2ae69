"""Whether what a load test says is confirmed by another generator."""
