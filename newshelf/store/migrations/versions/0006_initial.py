"""All tables of the first release; earlier development schemas had smaller numbers."""

from alembic import op

from newshelf.store.schema import METADATA

revision = "0006"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    for table in METADATA.sorted_tables:
        table.create(op.get_bind())
