"""The rows of a matrix that are nearest to a query, by inner product, among those allowed.

::

    plain.PlainSearch   float32 products; small matrices, no file of its own
    exact.Int8Search    all rows as int8, then float32: exact, a quarter of the bytes
    ann.AnnSearch       the lists of an inverted file that are nearest to the query

``build.build_search`` chooses and writes one, ``open_search`` maps it into memory.
"""

from newshelf.serving.search.base import Search
from newshelf.serving.search.manifest import SearchManifest
from newshelf.serving.search.open import open_search
from newshelf.serving.search.plain import PlainSearch
from newshelf.serving.search.select import top_rows

__all__ = ["PlainSearch", "Search", "SearchManifest", "open_search", "top_rows"]
