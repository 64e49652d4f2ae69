"""The live catalogue: item changes, encoded and published to the workers of this host."""
