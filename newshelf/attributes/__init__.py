"""Facts about products: type, colour, material, brand and style.

::

    columns ──────────────────────┐
    titles, descriptions ─ lexicon ├─► facts ─► knowledge.parquet ─► index: filters, reasons
    titles ─ tagger (optional) ────┤
    encoder's heads ───────────────┘

``lexicon`` and ``phrases`` are what serving reads; they load no torch, and the archives
carry them. The others are for training.
"""
