"""Alembic's entry: runs migrations on the connection that is given to it."""

from alembic import context

from newshelf.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # Alembic thinks that SQLite cannot; with explicit BEGIN it can.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
