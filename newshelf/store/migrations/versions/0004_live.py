"""Live products, their vectors, and units that were merged or erased."""

import sqlalchemy as sa
from alembic import op

from newshelf.store import schema

revision = "0004"
down_revision = "0003"

_ANSWER = ("placement", "kind", "rules")
_TABLES = (
    schema.items,
    schema.pictures,
    schema.encoded,
    schema.shelves,
    schema.unit_merges,
    schema.erased_units,
)


def upgrade() -> None:
    """Make the tables, and the columns of an answer that say how it came about."""
    for table in _TABLES:
        table.create(op.get_bind())
    for name in _ANSWER:
        op.add_column("exposures", sa.Column(name, sa.Text()))
