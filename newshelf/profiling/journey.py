"""One request's way, on one clock: client, server, worker, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.errors import ServerError
from newshelf.load.run import Exchange
from newshelf.serving.observe import STAGES, Stage
from newshelf.serving.trace import BatchTrace, read_trace

__all__ = ["Journey", "journeys"]


@dataclass(frozen=True)
class Journey:
    """Moments are nanoseconds since the epoch, in the order in which they are named."""

    client: int
    sent_ns: int
    batch: BatchTrace
    """Its ``start_ns`` and ``end_ns`` lie in between."""
    end_ns: int
    """The answer was read."""

    @property
    def total_ns(self) -> int:
        """As the client sees it."""
        return self.end_ns - self.sent_ns

    @property
    def there_ns(self) -> int:
        """Until a worker began: sockets, TorchServe's frontend and its queue."""
        return self.batch.start_ns - self.sent_ns

    @property
    def back_ns(self) -> int:
        """From the worker's last line to the client's last byte."""
        return self.end_ns - self.batch.end_ns

    def stages_ns(self) -> dict[Stage, int]:
        """The time of the whole batch in each stage."""
        sums = dict.fromkeys(STAGES, 0)
        for span in self.batch.spans:
            sums[span.stage] += span.end_ns - span.start_ns
        return sums

    @property
    def between_ns(self) -> int:
        """In the handler, and in none of its stages."""
        return self.batch.end_ns - self.batch.start_ns - sum(self.stages_ns().values())


def journeys(exchanges: Sequence[Exchange]) -> list[Journey]:
    """Read what the workers told in the answers' headers.

    Raises:
        ServerError: an answer carried no trace, or none that this version reads.
    """
    return [_journey(exchange) for exchange in exchanges]


def _journey(exchange: Exchange) -> Journey:
    if exchange.header is None:
        raise ServerError(
            "the server tells no spans: its archives are of an older Newshelf, or something "
            "between drops the header; ./run serve makes new ones"
        )
    try:
        batch = read_trace(exchange.header)
    except ValueError as error:
        raise ServerError(f"the server's spans cannot be read: {error}") from error
    if not exchange.sent_ns <= batch.start_ns <= batch.end_ns <= exchange.end_ns:
        raise ServerError(
            "the worker's clock is not the client's: profile from the machine of the server, "
            "and not while its clock is being set"
        )
    return Journey(exchange.client, exchange.sent_ns, batch, exchange.end_ns)
