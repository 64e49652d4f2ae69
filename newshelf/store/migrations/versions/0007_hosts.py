"""Hosts with a model server, and the version that is served."""

from alembic import op

from newshelf.store.schema import hosts, served

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables."""
    for table in (hosts, served):
        table.create(op.get_bind())
