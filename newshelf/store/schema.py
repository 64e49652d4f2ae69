"""Tables of the event store.

Times are microseconds since 1970, UTC, so that both databases compare them alike. A change here
needs a migration in ``migrations/versions``; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    }
)

# SQLite generates ids only for a column of type INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")

exposures = Table(
    "exposures",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("unit", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("rollout", Text),
    Column("variant", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("index_version", Text, nullable=False),
    Column("fallback", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("shown", Integer, nullable=False),
    # One row per answer, not per product: a tenth of the rows on the hot path.
    # JSON: [[item_id, position, score, source, propensity], …]
    Column("ranking", Text, nullable=False),
    Index(None, "unit", "at_us"),
    # At a step of 1 %, 98 of 100 answers are the default variant's, which no analysis reads.
    Index(None, "rollout", "variant", "at_us"),
)

feedback = Table(
    "feedback",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("event_type", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("unit", Text, nullable=False),
    Column("value", Double),
    # From the exposure; null when no answer showed the product.
    Column("request_id", Text),
    Column("rollout", Text),
    Column("variant", Text),
    Column("position", Integer),
    Column("source", Text),
    Index(None, "unit", "at_us"),
    Index(None, "rollout", "variant", "at_us"),
)

rollouts = Table(
    "rollouts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON of a TrafficSplit; null before the start and after the end.
    Column("split", Text),
    Column("revision", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)

journal = Table(
    "journal",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, ForeignKey("rollouts.name"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("split", Text),
    Column("note", Text, nullable=False),
    UniqueConstraint("rollout", "revision"),
)

looks = Table(
    "looks",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, ForeignKey("rollouts.name"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("look", Text, nullable=False),
    Index(None, "rollout", "at_us"),
)

leases = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

shadow_answers = Table(
    "shadow_answers",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("error", Boolean, nullable=False),
    Column("overlap", Double),
    Column("score_drift", Double),
    UniqueConstraint("rollout", "request_id"),
    Index(None, "rollout", "at_us"),
)
