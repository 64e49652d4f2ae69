"""Whether the generator, and not the server, set what was measured."""

from hdrh.histogram import HdrHistogram

__all__ = ["why_limited"]

_MOST_CPU_PERCENT = 90.0
_LEAST_SENT = 0.99
_P99 = 99.0
_US_PER_MS = 1000


def why_limited(
    *, cpu_percent: float, lateness: HdrHistogram, late_after_ms: float, sent_in_time: float
) -> str:
    """Say why what was measured is not the server's doing; an empty text when it is.

    Args:
        cpu_percent: of one core, of the busiest generator process.
        lateness: of every sending after its intended start, in microseconds.
        late_after_ms: the lateness that is still put up with, at the 99th percentile.
        sent_in_time: of the arrivals that were not dropped, the share that was sent before the
            run was over.
    """
    p99_ms = lateness.get_value_at_percentile(_P99) / _US_PER_MS if lateness.total_count else 0.0
    reasons = []
    if cpu_percent > _MOST_CPU_PERCENT:
        reasons.append(f"it used {cpu_percent:.0f} % of a core")
    if p99_ms > late_after_ms:
        reasons.append(
            f"one request in a hundred was sent {p99_ms:.1f} ms late or later "
            f"(at most {late_after_ms:g} ms are put up with)"
        )
    if sent_in_time < _LEAST_SENT:
        reasons.append(f"only {100 * sent_in_time:.1f} % of the requests were sent in time")
    if not reasons:
        return ""
    return (
        f"the generator was the limit: {'; '.join(reasons)}; "
        "use more processes, a lower rate or another machine"
    )
