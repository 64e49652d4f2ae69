"""The snapshots of the controller at each look, for the report."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "looks",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("look", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_looks")),
        sa.ForeignKeyConstraint(
            ["rollout"], ["rollouts.name"], name=op.f("fk_looks_rollout_rollouts")
        ),
    )
    op.create_index(op.f("ix_looks_rollout_at_us"), "looks", ["rollout", "at_us"])


def downgrade() -> None:
    """Drop it, with all that it holds."""
    op.drop_table("looks")
