"""Exposures, feedback, rollouts with their journal and leases, and shadow answers."""

import sqlalchemy as sa
from alembic import op

from newshelf.store import schema

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _exposures()
    _feedback()
    for table in (schema.rollouts, schema.journal, schema.leases, schema.shadow_answers):
        table.create(op.get_bind())


def _exposures() -> None:
    op.create_table(
        "exposures",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("rollout", sa.Text()),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("index_version", sa.Text(), nullable=False),
        sa.Column("fallback", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("shown", sa.Integer(), nullable=False),
        sa.Column("ranking", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exposures")),
        sa.UniqueConstraint("request_id", name=op.f("uq_exposures_request_id")),
    )
    op.create_index(op.f("ix_exposures_unit_at_us"), "exposures", ["unit", "at_us"])
    op.create_index(op.f("ix_exposures_rollout_at_us"), "exposures", ["rollout", "at_us"])


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("request_id", sa.Text()),
        sa.Column("rollout", sa.Text()),
        sa.Column("variant", sa.Text()),
        sa.Column("position", sa.Integer()),
        sa.Column("source", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("event_id", name=op.f("uq_feedback_event_id")),
    )
    op.create_index(op.f("ix_feedback_unit_at_us"), "feedback", ["unit", "at_us"])
    op.create_index(op.f("ix_feedback_rollout_at_us"), "feedback", ["rollout", "at_us"])
