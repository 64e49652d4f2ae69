"""Which variant a unit sees: a pure function of the split and the unit's name.

A unit is hashed with the rollout's salt into one of 10,000 buckets. The challenger takes
buckets from 0 upwards and control from the top downwards, as many. A ramp therefore only adds
units to either, and nobody ever changes sides. Nothing is remembered, so every replica of the
gateway says the same.

A salt for each rollout makes rollouts independent of each other; without one, the same
shoppers would be the first to see every new model (Kohavi et al. 2020, Trustworthy Online
Controlled Experiments, ch. 4). The holdout has a salt that never changes, so that it stays
the same shoppers.
"""

import secrets
from hashlib import blake2b
from typing import Literal

from newshelf.store.records import BUCKETS, Assignment, TrafficSplit

HOLDOUT_SALT = "newshelf holdout"
_SALT_BYTES = 16
_HASH_BYTES = 8
"""2^64 is so much more than 10,000 that no bucket is likelier by more than 1 in 10^15."""


def new_salt() -> str:
    """A salt that no other rollout has: 128 random bits, as 32 hexadecimal digits."""
    return secrets.token_hex(_SALT_BYTES)


def bucket_of(salt: str, unit: str) -> int:
    """The bucket of a unit, from 0 to ``BUCKETS`` − 1: BLAKE2b (RFC 7693) of both."""
    text = f"{len(salt)}:{salt}{unit}"
    # Ids come as JSON, which can hold halves of surrogate pairs.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "little") % BUCKETS


def assign(split: TrafficSplit, unit: str) -> Assignment:
    """Where a unit belongs.

    Args:
        split: what the store says now.
        unit: the front end's id of the shopper or visitor.

    Returns:
        Variant, version, bucket, whether it counts, and the probability of the variant. A
        tester's variant has the probability 1: no chance was in it.
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
