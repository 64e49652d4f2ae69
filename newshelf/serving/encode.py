"""Products to embeddings and labels: the one way in which serving calls the encoder."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from newshelf.errors import DeadlineExceeded, InvalidField, NewshelfError
from newshelf.nn.spec import EncoderSpec
from newshelf.serving.cache import EncodingCache, content_key
from newshelf.serving.deadline import refuse_late
from newshelf.serving.decode import Pictures, Reader
from newshelf.serving.encoding import Encoding, read_outputs
from newshelf.serving.forwards import plan_forwards
from newshelf.serving.observe import CACHE_HITS, CACHE_MISSES, UNREAD_TEXTS, Stages
from newshelf.serving.preprocess import Content, InputBuilder
from newshelf.serving.products import ProductInput
from newshelf.serving.runtimes import Array, Runtime

__all__ = ["Encoding", "ProductEncoder"]

Result = Encoding | NewshelfError


@dataclass(frozen=True, slots=True)
class _Work:
    """One product to be encoded, for all that are equal to it."""

    places: list[int]
    """Their positions among the products."""
    item: ProductInput
    """The one of them with the latest deadline."""
    content: Content
    key: bytes
    """Under which the result is kept."""

    @property
    def at(self) -> int:
        """The position of the first of them."""
        return self.places[0]


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
            works = self._to_do(inputs, results, stages)
            plan = self._plan(works, results, stages)
        for forward in self._ahead(plan, stages):
            results |= self._run(forward, stages)
        for work in works:
            result = results[work.at]
            if self._cache is not None and isinstance(result, Encoding):
                self._cache.put(work.key, result)
            for at in work.places:
                results[at] = _told_of(inputs[at], result, work.item)
        return [results[at] for at in range(len(inputs))]

    def _to_do(
        self, inputs: Sequence[ProductInput], results: dict[int, Result], stages: Stages
    ) -> list[_Work]:
        """The products that must be encoded; the results of the others go to ``results``."""
        works: dict[bytes, _Work] = {}
        hits = 0
        for at, item in enumerate(inputs):
            if error := self._unreadable(item):
                results[at] = error
                continue
            content = self._builder.content(item.product)
            key = content_key(content, item.picture)
            if work := works.get(key):
                hits += 1
                work.places.append(at)
                if _deadline(item) > _deadline(work.item):
                    works[key] = replace(work, item=item)
            elif self._cache is not None and (found := self._cache.get(key)):
                hits += 1
                results[at] = found
            else:
                works[key] = _Work([at], item, content, key)
        if self._cache is not None:
            stages.count(CACHE_HITS, hits)
            stages.count(CACHE_MISSES, len(works))
        return list(works.values())

    def _unreadable(self, item: ProductInput) -> InvalidField | None:
        if self._has_picture(item) or (self._spec.text is not None and item.product.text()):
            return None
        wanted = "an image" if self._spec.text is None else "a title or a description"
        return InvalidField(f"this model needs {wanted}", field=item.at or None)

    def _has_picture(self, item: ProductInput) -> bool:
        return item.picture is not None and self._spec.image is not None

    def _plan(
        self, all_works: Sequence[_Work], results: dict[int, Result], stages: Stages
    ) -> list[tuple[list[_Work], list[list[int]]]]:
        """The works that share a forward, with their tokens; errors go to ``results``."""
        works, tokens = [], []
        for work, row in zip(
            all_works, self._builder.tokens([work.content for work in all_works]), strict=True
        ):
            stages.count(UNREAD_TEXTS, bool(work.content.text and not row))
            if row or self._has_picture(work.item) or any(work.content.attributes):
                works.append(work)
                tokens.append(row)
            else:
                results[work.at] = InvalidField(
                    "this model's text tower knows no word of the title and description: send "
                    "an image or attributes, too, or train with a text tower for this language",
                    field=work.item.at or None,
                )
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
        for row, result in zip(kept, encodings, strict=True):
            work = forward.works[row]
            unread = bool(work.content.text and not forward.tokens[row])
            results[work.at] = (
                replace(result, text_unread=unread) if isinstance(result, Encoding) else result
            )
        return results

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


def _deadline(item: ProductInput) -> float:
    return math.inf if item.deadline_s is None else item.deadline_s


def _told_of(item: ProductInput, result: Result, encoded: ProductInput) -> Result:
    """The result of ``encoded`` as that of its equal ``item``: an error names another place."""
    if item is encoded or isinstance(result, Encoding):
        return result
    error = copy(result)
    if result.field is not None:
        name = result.field.removeprefix(encoded.at).removeprefix(".")
        error.field = (item.field(name) if name else item.at) or None
    return error


def _late(item: ProductInput) -> DeadlineExceeded | None:
    try:
        refuse_late(item.deadline_s)
    except DeadlineExceeded as error:
        return error
    return None
