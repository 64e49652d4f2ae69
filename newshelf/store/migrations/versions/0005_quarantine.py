"""Units that were released from quarantine."""

from alembic import op

from newshelf.store.schema import released_units

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    released_units.create(op.get_bind())
