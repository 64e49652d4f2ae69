"""The catalogue: schema, readers, validation, and the drawn sample."""
