"""Alembic's scripts; ``newshelf.store.database`` runs them."""
