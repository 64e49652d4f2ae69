"""Tables of the event store.

Times are microseconds since 1970, UTC, so that both databases compare them alike. A change here
needs a migration in ``migrations/versions``; a test compares the two. Tables that have not changed
since are made from here by the migration that brought them.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
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
    Column("placement", Text),
    Column("kind", Text),
    # JSON: {rule: [position, …]}; null when no rule touched the answer.
    Column("rules", Text),
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
    # Of the key through which the gateway got it; null for older events.
    Column("key_name", Text),
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

items = Table(
    "items",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    # Place in the order of all changes; 0 for a product that the first base index was made with.
    Column("seq", BigInteger, nullable=False),
    # JSON of the product's columns, canonical and others, without its picture.
    Column("body", Text, nullable=False),
    # sha256:HEX, in ``pictures``, or file:/PATH, in a catalogue of this host.
    Column("picture", Text),
    Column("deleted", Boolean, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    # SHA-256 of what the encoder read of it in the catalogue; null for a product that came later.
    Column("seeded", Text),
    Index(None, "seq"),
)

pictures = Table(
    "pictures",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

# Vectors of a product's revision, made by the encoder of a model version.
encoded = Table(
    "encoded",
    METADATA,
    Column("version", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # SHA-256 of all that the encoder reads, so that a change of stock needs no encoding.
    Column("inputs", Text, nullable=False),
    # float32; null when the product could not be encoded.
    Column("embedding", LargeBinary),
    Column("vector", LargeBinary),
    # Why its picture, or the whole product, could not be encoded.
    Column("problem", Text),
    Index(None, "version", "seq"),
)

# Up to which change a host's workers know the products, by model version.
shelves = Table(
    "shelves",
    METADATA,
    Column("host", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

# A visitor who logged in: what ``visitor`` did is ``unit``'s.
unit_merges = Table(
    "unit_merges",
    METADATA,
    Column("visitor", Text, primary_key=True),
    Column("unit", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index(None, "unit"),
)

# SHA-256 of the ids of erased units, whose late events are refused.
erased_units = Table(
    "erased_units",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)

# Units that count although they behave like robots.
released_units = Table(
    "released_units",
    METADATA,
    Column("unit", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
