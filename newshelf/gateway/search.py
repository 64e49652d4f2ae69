"""Search by sentence and picture: the body of the request, and the products that its words find."""

import asyncio

import orjson

from newshelf.catalog.schema import Id
from newshelf.config import Limits
from newshelf.errors import InvalidField, TooLarge
from newshelf.gateway.placements import Placements
from newshelf.gateway.schemas import RecommendOut, RecommendQuery, form_parts, form_table
from newshelf.serving.envelope import FormBody, open_envelope
from newshelf.serving.protocol import RawRequest
from newshelf.serving.query import read_price
from newshelf.serving.requests import check_k, searched_product
from newshelf.serving.schemas import (
    Filters,
    Listing,
    RecommendRequest,
    SearchQuery,
    Understood,
    validate,
)
from newshelf.shelf.words import WordIndex

_JSON_PARTS = ("k", "filters", "exclude")
"""Parts of a form that are not text."""


class SearchBody(Listing):
    """A search. It needs a text, an image, or both; a form may send the image as a file."""

    text: str | None = None
    """A sentence such as ``blue ring under 50``; what it states becomes filters."""
    image: str | None = None
    """The bytes of a JPEG, PNG, WebP or GIF in base64. URLs are never fetched."""
    unit: Id | None = None
    """Your own id of the shopper or anonymous visitor, whose history reranks what is found."""
    filters: Filters = Filters()
    """They replace what the sentence states on the same column, and are never relaxed."""
    cursor: str | None = None
    """The last answer's, for its next page; empty for the first page."""


class SearchOut(RecommendOut):
    """At most ``k`` products, best first; none if nothing passes the filters."""

    understood: Understood | None = None
    """How the sentence was read; omitted if the model did not answer."""


def parse_search_body(
    body: bytes, content_type: str, limits: Limits, placements: Placements
) -> RecommendQuery:
    """Check the body of ``/v1/search``: JSON, a form, or a bare picture."""
    envelope = open_envelope(RawRequest(form_parts(body, content_type), content_type), limits)
    table = _form_table(envelope) if isinstance(envelope, FormBody) else envelope.value
    if isinstance(table, dict):
        table = placements.completed(table, without=("kind", "diversity", "explain"))
    asked = check_k(validate(SearchBody, table), limits)
    text = asked.text if asked.text and asked.text.strip() else None
    if text is None and asked.image is None:
        raise InvalidField("a search needs a text, an image, or both", field="text")
    if text is not None and len(text) > limits.max_text_chars:
        raise TooLarge(
            f"text has {len(text)} characters; at most {limits.max_text_chars} are accepted",
            field="text",
        )
    search = SearchQuery(text=text, image=asked.image)
    searched_product(search, limits)
    own = {name: getattr(asked, name) for name in Listing.model_fields}
    sent = asked.model_dump(include={*own}, exclude_unset=True)
    request = RecommendRequest(**own, search=search)
    sent["search"] = search.model_dump(exclude_none=True)
    return RecommendQuery(asked.unit or "", request, sent, asked.cursor)


async def with_hits(query: RecommendQuery, words: WordIndex | None) -> RecommendQuery:
    """Return the query with the products whose texts match its sentence."""
    search = query.request.search
    if search is None or search.text is None or words is None:
        return query
    text, _ = read_price(search.text)
    hits = await asyncio.to_thread(words.search, text)
    search = search.model_copy(update={"hits": hits})
    return query.replaced(search=search)


def _form_table(form: FormBody) -> dict[str, object]:
    fields = form_table(form)
    for name in _JSON_PARTS:
        if isinstance(value := fields.get(name), str):
            try:
                fields[name] = orjson.loads(value)
            except orjson.JSONDecodeError:
                raise InvalidField("this part of the form must be JSON", field=name) from None
    return fields
