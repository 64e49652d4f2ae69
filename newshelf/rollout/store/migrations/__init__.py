"""Alembic's scripts; ``newshelf.rollout.store.migrate`` runs them."""

__all__: list[str] = []
