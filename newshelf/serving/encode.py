"""Products to embeddings and labels: the one way in which serving calls the encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from newshelf.errors import DeadlineExceeded, InvalidField, NewshelfError
from newshelf.nn.spec import EncoderSpec
from newshelf.serving.cache import EncodingCache, content_key
from newshelf.serving.deadline import refuse_late
from newshelf.serving.decode import Pictures, Reader
from newshelf.serving.encoding import Encoding, read_outputs
from newshelf.serving.forwards import plan_forwards
from newshelf.serving.observe import CACHE_HITS, CACHE_MISSES, Stages
from newshelf.serving.preprocess import Content, InputBuilder
from newshelf.serving.products import ProductInput
from newshelf.serving.runtimes import Array, Runtime

__all__ = ["Encoding", "ProductEncoder"]

Result = Encoding | NewshelfError


@dataclass(frozen=True, slots=True)
class _Work:
    """One product to be encoded."""

    at: int
    """Its position among the products."""
    item: ProductInput
    content: Content
    key: bytes | None
    """Under which the result is kept; None without a cache."""


@dataclass(frozen=True, slots=True)
class _Forward:
    """Products that share a forward, their pictures perhaps still being decoded."""

    works: Sequence[_Work]
    tokens: Sequence[Sequence[int]]
    pictured: Sequence[int]
    """Which of ``works`` have a picture."""
    pictures: Callable[[], Pictures]
    """Waits for them; only where there are any."""


class ProductEncoder:
    """Encodes products of any number of requests together.

    Args:
        spec: the encoder's description.
        runtime: its graph.
        builder: makes the graph's inputs.
        reader: decodes the pictures.
        max_forward_batch: products in one forward; more are done in turns.
        max_forward_pictures: pictures in one forward; while it runs, the next are decoded.
        cache: of what was encoded before; None for none.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        runtime: Runtime,
        builder: InputBuilder,
        reader: Reader,
        *,
        max_forward_batch: int,
        max_forward_pictures: int,
        cache: EncodingCache | None = None,
    ) -> None:
        self._spec = spec
        self._runtime = runtime
        self._builder = builder
        self._reader = reader
        self._max_forward_batch = max_forward_batch
        self._max_forward_pictures = max_forward_pictures
        self._cache = cache

    def encode(self, inputs: Sequence[ProductInput], stages: Stages) -> list[Result]:
        """Encode every product; one that cannot be gets its error in its place."""
        results: dict[int, Result] = {}
        with stages.measure("preprocess"):
            works = list(self._to_do(inputs, results, stages))
            plan = self._plan(works)
        for forward in self._ahead(plan, stages):
            results |= self._run(forward, stages)
        for work in works:
            result = results[work.at]
            if self._cache is not None and work.key and isinstance(result, Encoding):
                self._cache.put(work.key, result)
        return [results[at] for at in range(len(inputs))]

    def _to_do(
        self, inputs: Sequence[ProductInput], results: dict[int, Result], stages: Stages
    ) -> Iterator[_Work]:
        """The products that must be encoded; the results of the others go to ``results``."""
        hits = misses = 0
        for at, item in enumerate(inputs):
            if error := self._unreadable(item):
                results[at] = error
                continue
            content = self._builder.content(item.product)
            key = content_key(content, item.picture) if self._cache is not None else None
            found = None if self._cache is None or key is None else self._cache.get(key)
            if found:
                hits += 1
                results[at] = found
                continue
            misses += self._cache is not None
            yield _Work(at, item, content, key)
        stages.count(CACHE_HITS, hits)
        stages.count(CACHE_MISSES, misses)

    def _unreadable(self, item: ProductInput) -> InvalidField | None:
        has_picture = item.picture is not None and self._spec.image is not None
        if has_picture or (self._spec.text is not None and item.product.text()):
            return None
        wanted = "an image" if self._spec.text is None else "a title or a description"
        return InvalidField(f"this model needs {wanted}", field=item.at or None)

    def _plan(self, works: Sequence[_Work]) -> list[tuple[list[_Work], list[list[int]]]]:
        """The works that share a forward, with their tokens."""
        tokens = self._builder.tokens([work.content for work in works])
        groups = plan_forwards(
            [len(row) for row in tokens],
            [work.item.picture is not None for work in works],
            max_rows=self._max_forward_batch,
            max_pictures=self._max_forward_pictures,
        )
        return [([works[row] for row in group], [tokens[row] for row in group]) for group in groups]

    def _ahead(
        self, plan: Sequence[tuple[list[_Work], list[list[int]]]], stages: Stages
    ) -> Iterator[_Forward]:
        """Each forward, when the pictures of the next one are on their way."""
        waiting: _Forward | None = None
        for works, tokens in plan:
            pictured = [row for row, work in enumerate(works) if work.item.picture is not None]
            with stages.measure("decode"):
                pictures = self._reader.start([works[row].item for row in pictured])
            if waiting:
                yield waiting
            waiting = _Forward(works, tokens, pictured, pictures)
        if waiting:
            yield waiting

    def _run(self, forward: _Forward, stages: Stages) -> dict[int, Result]:
        """One forward; the results by position among all products."""
        results: dict[int, Result] = {}
        images: Array | None = None
        if forward.pictured:
            with stages.measure("decode"):
                pictures = forward.pictures()
            images = pictures.images
            for at, error in pictures.failed.items():
                results[forward.works[forward.pictured[at]].at] = error
        for work in forward.works:
            if work.at not in results and (late := _late(work.item)):
                results[work.at] = late
        kept = [row for row, work in enumerate(forward.works) if work.at not in results]
        if not kept:
            return results
        with stages.measure("preprocess"):
            inputs = self._inputs(forward, kept, images)
        with stages.measure("inference"):
            outputs = self._runtime.run(inputs)
        with stages.measure("postprocess"):
            encodings = read_outputs(outputs, self._spec)
        computed = (forward.works[row].at for row in kept)
        return results | dict(zip(computed, encodings, strict=True))

    def _inputs(
        self, forward: _Forward, kept: Sequence[int], images: "Array | None"
    ) -> Mapping[str, Array]:
        row_of = {row: new for new, row in enumerate(kept)}
        good = [at for at, row in enumerate(forward.pictured) if row in row_of]
        if images is not None and len(good) < len(images):
            images = images[good]
        return self._builder.inputs(
            [forward.works[row].content for row in kept],
            [forward.tokens[row] for row in kept],
            images,
            [row_of[forward.pictured[at]] for at in good],
        )


def _late(item: ProductInput) -> DeadlineExceeded | None:
    try:
        refuse_late(item.deadline_ms)
    except DeadlineExceeded as error:
        return error
    return None
