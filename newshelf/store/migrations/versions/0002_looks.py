"""The snapshots of the controller at each look, for the report."""

from alembic import op

from newshelf.store.schema import looks

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    looks.create(op.get_bind())
