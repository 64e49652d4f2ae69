"""Assignment of units to variants: a pure function of split and unit.

A unit is hashed with the rollout's salt into one of 10,000 buckets. The challenger takes buckets
from 0 upwards, control the same number from the top downwards. So a ramp only adds units, no unit
changes sides, and every replica of the gateway gives the same answer without shared state.

A salt per rollout makes rollouts independent; otherwise the same shoppers would be the first to
see every new model (Kohavi et al. 2020, Trustworthy Online Controlled Experiments, ch. 4). The
holdout's salt is constant, so that it keeps its shoppers.
"""

import secrets
from hashlib import blake2b
from typing import Literal

from newshelf.store.records import BUCKETS, Assignment, TrafficSplit

HOLDOUT_SALT = "newshelf holdout"
_SALT_BYTES = 16
_HASH_BYTES = 8
"""64 bits: bucket probabilities differ by less than 1 in 10^15."""


def new_salt() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(_SALT_BYTES)


def bucket_of(salt: str, unit: str) -> int:
    """Return the bucket of a unit, 0 to ``BUCKETS`` − 1, by BLAKE2b (RFC 7693)."""
    text = f"{len(salt)}:{salt}{unit}"
    # JSON ids may contain lone surrogates.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "little") % BUCKETS


def assign(split: TrafficSplit, unit: str) -> Assignment:
    """Assign a unit, a shopper or visitor by the front end's id, to a variant.

    A tester's variant is fixed, so its propensity is 1.
    """
    bucket = bucket_of(split.salt, unit)
    override = split.overrides.get(unit)
    if override is not None:
        version = split.challenger if override == "challenger" else split.control
        return Assignment(override, version, bucket, counted=False, propensity=1.0)
    taken = 0 if split.shadow else round(split.share * BUCKETS)
    held_out = round(split.holdout * BUCKETS)
    inside = taken / BUCKETS * (1 - held_out / BUCKETS)
    if not held_out or bucket_of(HOLDOUT_SALT, unit) >= held_out:
        if bucket < taken:
            variant: Literal["interleaved", "challenger"] = (
                "interleaved" if split.interleave else "challenger"
            )
            return Assignment(variant, split.challenger, bucket, counted=True, propensity=inside)
        if bucket >= BUCKETS - taken:
            return Assignment("control", split.control, bucket, counted=True, propensity=inside)
    return Assignment("default", split.control, bucket, counted=False, propensity=1 - 2 * inside)
