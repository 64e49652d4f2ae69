"""The catalogue: product and event schema, feed readers, cleaning and validation."""
