"""Exposures, feedback, rollouts with their journal and leases, and shadow answers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _exposures()
    _feedback()
    _rollouts()
    _shadow()


def downgrade() -> None:
    """Drop them, with all that they hold."""
    for table in ("shadow_answers", "leases", "journal", "rollouts", "feedback", "exposures"):
        op.drop_table(table)


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


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("split", sa.Text()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "journal",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("split", sa.Text()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
        sa.ForeignKeyConstraint(
            ["rollout"], ["rollouts.name"], name=op.f("fk_journal_rollout_rollouts")
        ),
        sa.UniqueConstraint("rollout", "revision", name=op.f("uq_journal_rollout_revision")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _shadow() -> None:
    op.create_table(
        "shadow_answers",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("error", sa.Boolean(), nullable=False),
        sa.Column("overlap", sa.Double()),
        sa.Column("score_drift", sa.Double()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_answers")),
        sa.UniqueConstraint(
            "rollout", "request_id", name=op.f("uq_shadow_answers_rollout_request_id")
        ),
    )
    op.create_index(op.f("ix_shadow_answers_rollout_at_us"), "shadow_answers", ["rollout", "at_us"])
