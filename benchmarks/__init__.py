"""Measurements on real data, apart from the tests: `./run bench NAME`."""
