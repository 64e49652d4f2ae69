"""The rows of a matrix that are nearest to a query, by inner product, among those allowed.

::

    plain.PlainSearch   float32 products; small matrices, no file of its own
    exact.Int8Search    all rows as int8, then float32: exact, a quarter of the bytes
    ann.AnnSearch       the lists of an inverted file that are nearest to the query

``build.build_search`` chooses and writes one, ``open_search`` maps it into memory.
"""
