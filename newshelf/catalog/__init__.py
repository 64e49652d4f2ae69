"""The catalogue: schema, readers, validation, and the drawn sample.

The names below load pandas on first use only: ``newshelf.catalog.schema`` is carried by
the serving archives, whose workers should not pay for it.
"""
