"""Servers of the peers; each file runs in the peers' environment."""
