"""Benchmarks on real data: `./run bench NAME`."""
