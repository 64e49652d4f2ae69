"""Attributes of products (type, colour, material, brand, style), from columns, texts and models.

::

    columns ──────────────────────┐
    titles, descriptions ─ lexicon ├─► facts ─► knowledge.parquet ─► index: filters, explanations
    titles ─ tagger (optional) ────┤
    encoder's heads ───────────────┘

Serving and its archives use ``lexicon``, which does not import torch; the other modules are for
training.
"""
