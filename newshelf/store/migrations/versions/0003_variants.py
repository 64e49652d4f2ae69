"""A rollout's records are found by variant."""

from alembic import op

revision = "0003"
down_revision = "0002"

_TABLES = ("exposures", "feedback")
_BEFORE, _AFTER = ["rollout", "at_us"], ["rollout", "variant", "at_us"]


def upgrade() -> None:
    """Put the variant into the index."""
    _replace(_BEFORE, _AFTER)


def downgrade() -> None:
    """Take it out."""
    _replace(_AFTER, _BEFORE)


def _replace(old: list[str], new: list[str]) -> None:
    for table in _TABLES:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(old)}"), table)
        op.create_index(op.f(f"ix_{table}_{'_'.join(new)}"), table, new)
