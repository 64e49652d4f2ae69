"""Which products share a forward of the encoder.

A forward pads its texts to the longest of them, so one long description among short titles
makes all of them cost as much. It also has a cost of its own, whatever it holds. Texts of
like length are put together where that saves more than a further forward costs::

    cost(forward) = rows with a text x longest text + FORWARD        in tokens

Rows without a picture go first: their forward runs while the pictures are decoded.
"""

from collections.abc import Sequence

__all__ = ["plan_forwards"]

FORWARD = 40
"""What one more forward costs, in tokens of text."""


def plan_forwards(
    lengths: Sequence[int], pictured: Sequence[bool], *, max_rows: int, max_pictures: int
) -> list[list[int]]:
    """Split rows into forwards so that the sum of their costs is the least.

    Args:
        lengths: tokens of each row; 0 without a text.
        pictured: which rows have a picture.
        max_rows: in one forward.
        max_pictures: in one forward; fewer let its run overlap with more of the decoding.

    Returns:
        Row numbers, each in one forward.
    """
    rows = sorted(range(len(lengths)), key=lambda row: (pictured[row], lengths[row]))
    first_pictured = sum(not has for has in pictured)
    return [
        *_split(rows[:first_pictured], lengths, max_rows),
        *_split(rows[first_pictured:], lengths, min(max_rows, max_pictures)),
    ]


def _split(rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """The cheapest split of ``rows``, which are sorted by length, by dynamic programming."""
    texts = sum(not lengths[row] for row in rows)
    best = [0]
    start_of = [0]
    for end in range(1, len(rows) + 1):
        longest = lengths[rows[end - 1]]
        costs = {
            # Rows without a text come first, so those before `texts` are not padded.
            start: best[start] + FORWARD + (end - max(start, texts)) * longest
            for start in range(max(0, end - most), end)
        }
        start = min(costs, key=lambda at: costs[at])
        best.append(costs[start])
        start_of.append(start)
    groups: list[list[int]] = []
    end = len(rows)
    while end:
        groups.append(list(rows[start_of[end] : end]))
        end = start_of[end]
    return groups[::-1]
