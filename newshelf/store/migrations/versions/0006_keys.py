"""The name of the key through which an event came."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the column."""
    op.add_column("feedback", sa.Column("key_name", sa.Text()))
