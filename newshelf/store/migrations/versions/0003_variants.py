"""A rollout's records are found by variant."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Put the variant into the index."""
    for table in ("exposures", "feedback"):
        op.drop_index(op.f(f"ix_{table}_rollout_at_us"), table)
        name = op.f(f"ix_{table}_rollout_variant_at_us")
        op.create_index(name, table, ["rollout", "variant", "at_us"])
