"""All tables of the first release; earlier development schemas had smaller numbers."""

from alembic import op

from newshelf.store import schema

revision = "0006"
down_revision = None

_TABLES = (
    schema.exposures,
    schema.feedback,
    schema.rollouts,
    schema.journal,
    schema.looks,
    schema.leases,
    schema.shadow_answers,
    schema.items,
    schema.pictures,
    schema.encoded,
    schema.shelves,
    schema.unit_merges,
    schema.erased_units,
    schema.released_units,
)


def upgrade() -> None:
    """Make the tables."""
    for table in _TABLES:
        table.create(op.get_bind())
