"""Routes of units: what is kept about one, merges, and erasure."""

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter, ValidationError

from newshelf.catalog.schema import Id
from newshelf.errors import Conflict, ErasedUnit, InvalidField
from newshelf.files import StrictModel
from newshelf.gateway.context import content_type_of, json_response, read_body
from newshelf.gateway.openapi import NOT_NOW, REFUSED, body_of, errors_of
from newshelf.gateway.schemas import read_table
from newshelf.gateway.state import AppState
from newshelf.serving.schemas import validate
from newshelf.store.units import Erasure, UnitRecord

_ID: TypeAdapter[str] = TypeAdapter(Id)


class MergeIn(StrictModel):
    """A visitor who has logged in."""

    visitor: Id
    unit: Id
    """What the visitor did belongs to this unit's history from now on."""


def add_units_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""

    @app.post(
        "/v1/units/merge",
        response_model=MergeIn,
        responses={**REFUSED, **errors_of(Conflict, ErasedUnit), **NOT_NOW},
        openapi_extra=body_of(MergeIn),
    )
    async def merge(request: Request) -> Response:
        """Merge a visitor into the unit that has logged in. Merging again changes nothing."""
        state = state_of()
        merge = validate(MergeIn, read_table(await read_body(request), content_type_of(request)))
        visitor, unit = map(state.recommender.pseudonym, (merge.visitor, merge.unit))
        await asyncio.to_thread(state.store.units.merge, visitor, unit)
        state.recommender.histories.drop([unit])
        return json_response(merge.model_dump())

    @app.get("/v1/units/{unit:path}", response_model=UnitRecord, responses={**REFUSED, **NOT_NOW})
    async def show(request: Request) -> Response:
        """Return everything that is kept about a unit."""
        state = state_of()
        return json_response(await asyncio.to_thread(state.store.units.show, _unit(request, state)))

    @app.delete("/v1/units/{unit:path}", response_model=Erasure, responses={**REFUSED, **NOT_NOW})
    async def erase(request: Request) -> Response:
        """Erase everything about a unit, and refuse its later events. Takes some seconds."""
        state = state_of()
        unit = _unit(request, state)
        erased = await asyncio.to_thread(state.store.units.erase, unit)
        state.recommender.histories.drop([unit])
        return json_response(erased)


def _unit(request: Request, state: AppState) -> str:
    try:
        return state.recommender.pseudonym(_ID.validate_python(request.path_params["unit"]))
    except ValidationError as error:
        raise InvalidField(error.errors()[0]["msg"], field="unit") from None
