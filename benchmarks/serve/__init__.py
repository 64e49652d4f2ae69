"""Serving: every contender on the same cores under the same load. `./run bench serve`."""
