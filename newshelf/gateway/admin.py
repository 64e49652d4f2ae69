"""Routes below ``/v1/admin``: server, rollouts, keys, retrainings, rules, previews.

All need a key with the scope ``admin``. The console shows their answers.
"""

import asyncio
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import AwareDatetime, BaseModel

from newshelf.errors import Conflict, NotFound, RolloutError, SettingsError, Unavailable
from newshelf.files import StrictModel, read_json
from newshelf.gateway.context import context_of, json_response, read_body
from newshelf.gateway.openapi import NOT_NOW, REFUSED, body_of, errors_of
from newshelf.gateway.schemas import RecommendIn, parse_recommend_body, path_id, read_table
from newshelf.gateway.state import AppState, parsed
from newshelf.rollout.operations import ALLOWED, change_rollout
from newshelf.server.process import is_running
from newshelf.server.state import SEARCH, read_state
from newshelf.serving.schemas import validate
from newshelf.store.rollouts import JournalEntry, RolloutRow

_MOST_LOOKS = 120


class RolloutSummary(BaseModel):
    """A rollout and its phase."""

    rollout: str
    control: str
    challenger: str
    phase: str
    resumes_to: str | None
    """The interrupted phase, while it is paused."""
    step: int
    since: AwareDatetime
    reason: str
    """Why it is in this phase; of a command, also by whom."""
    share: float
    """Of the units that see the challenger."""


class RolloutCourse(RolloutSummary):
    """A rollout with what happened to it, oldest first."""

    commands: Sequence[str]
    """Those that its phase allows."""
    changes: Sequence[RolloutSummary]
    looks: Sequence[Mapping[str, Any]]
    """At most 120 looks of the controller; ``NaN`` and ``Infinity`` are texts."""


Command = Literal["pause", "resume", "promote", "abort"]


class RolloutCommand(StrictModel):
    """A command to a rollout; ``abort`` also takes a promotion back."""

    command: Command


def add_admin_routes(app: FastAPI, state_of: Callable[[], AppState]) -> None:
    """Add the routes to ``app``."""
    refused: dict[int | str, dict[str, Any]] = {**REFUSED, **NOT_NOW}
    named = {**refused, **errors_of(NotFound, Conflict)}

    @app.get("/v1/admin/status", response_model=dict[str, Any], responses=refused)
    async def show_status(request: Request) -> Response:
        """Return the state of processes, models, event store and live shelf."""
        state = state_of()
        missing = await state.readiness.missing(context_of(request).deadline)
        return json_response(await asyncio.to_thread(_status, state, missing))

    @app.get("/v1/admin/rollouts", response_model=list[RolloutSummary], responses=refused)
    async def list_rollouts(_request: Request) -> Response:
        """Return all rollouts, the last first."""
        rows = await asyncio.to_thread(state_of().store.rollouts.all)
        return json_response([_summary(row.plan, row) for row in reversed(rows)])

    @app.get("/v1/admin/rollouts/{name:path}", response_model=RolloutCourse, responses=named)
    async def show_rollout(request: Request) -> Response:
        """Return a rollout with its changes and what the controller saw."""
        return json_response(await asyncio.to_thread(_course, state_of(), path_id(request, "name")))

    @app.post(
        "/v1/admin/rollouts/{name:path}",
        response_model=RolloutCourse,
        responses=named,
        openapi_extra=body_of(RolloutCommand),
    )
    async def command_rollout(request: Request) -> Response:
        """Pause, resume, promote or abort a rollout. The key's name becomes part of the journal."""
        name, key = path_id(request, "name"), context_of(request).key
        sent = validate(RolloutCommand, read_table(*await read_body(request)))
        by = f"the key {key.name}" if key else "nobody"
        state = state_of()
        await asyncio.to_thread(_course, state, name)
        try:
            await asyncio.to_thread(change_rollout, state.store, name, sent.command, by=by)
        except RolloutError as error:
            raise Conflict(error.message, field="command") from error
        return json_response(await asyncio.to_thread(_course, state, name))

    @app.get("/v1/admin/keys", response_model=list[dict[str, Any]], responses=refused)
    async def list_keys(_request: Request) -> Response:
        """Return all keys without their hashes, and when this process saw each last."""
        used = state_of().access.used()
        rows = [key.model_dump(exclude={"sha256"}) | {"last_used": at} for key, at in used]
        return json_response(rows)

    @app.get("/v1/admin/retrainings", response_model=dict[str, Any], responses=refused)
    async def list_retrainings(_request: Request) -> Response:
        """Return ``retrainings``, the last first, and ``drift``, the last report or null."""
        return json_response(await asyncio.to_thread(_upkeep, state_of()))

    @app.get("/v1/admin/rules", response_model=dict[str, Any], responses=refused)
    async def show_rules(_request: Request) -> Response:
        """Return ``rules`` and ``placements`` as their files have them."""
        return json_response(await asyncio.to_thread(_merchandising, state_of()))

    @app.post(
        "/v1/admin/preview",
        response_model=dict[str, Any],
        responses=refused,
        openapi_extra=body_of(RecommendIn),
    )
    async def preview(request: Request) -> Response:
        """Return the model's answer to a request like that of ``/v1/recommend``; record nothing."""
        state, body = state_of(), await read_body(request)
        query = await parsed(parse_recommend_body, *body, state.plan.limits, state.placements)
        reply = await state.recommender.preview(query, context_of(request))
        return Response(reply.body, reply.status, media_type=reply.content_type)


def _status(state: AppState, missing: Mapping[str, str]) -> dict[str, Any]:
    keys, items = state.plan.torchserve_keys, state.store.items
    found: dict[str, Any] = {"missing": missing, "archives": {}, "processes": []}
    found["version"] = state.recommender.router.current.version
    if keys is not None and (server := read_state(keys.parent)) is not None:
        found["archives"] = server.models
        found["processes"] = [
            {
                "name": name,
                "running": name in server.processes and is_running(server.processes[name]),
                "restarts": [
                    f"{at.time}: {at.reason}" for at in server.restarts if at.name == name
                ],
            }
            for name in sorted({*server.services, *server.processes} - {SEARCH})
        ]
    try:
        return {**found, "store": None, "last_change": items.last_seq(), "hosts": items.hosts()}
    except Unavailable as error:
        return {**found, "store": error.message, "last_change": 0, "hosts": []}


def _summary(plan: str, entry: RolloutRow | JournalEntry) -> dict[str, Any]:
    # Also of earlier versions, whose plans would not be accepted any more.
    table = orjson.loads(plan) | orjson.loads(entry.state)
    found = {name: table.get(name) for name in RolloutSummary.model_fields}
    return {**found, "share": entry.split.share if entry.split else 0.0}


def _course(state: AppState, name: str) -> dict[str, Any]:
    rollouts = state.store.rollouts
    try:
        row = rollouts.get(name)
    except SettingsError as error:
        raise NotFound(error.message) from error
    found = _summary(row.plan, row)
    looks = rollouts.snapshots(name, most=_MOST_LOOKS)
    return {
        **found,
        "commands": [one for one in get_args(Command) if found["phase"] in ALLOWED[one]],
        "changes": [_summary(row.plan, one) for one in rollouts.journal(name)],
        "looks": [{"at": one.at, **orjson.loads(one.snapshot)} for one in looks],
    }


def _upkeep(state: AppState) -> dict[str, Any]:
    folder, drift = state.plan.retrain, state.plan.drift
    files = sorted(folder.glob("*.json"), reverse=True) if folder else []
    report = read_json(drift) if drift and drift.exists() else None
    return {"retrainings": [read_json(path) for path in files], "drift": report}


def _merchandising(state: AppState) -> dict[str, Any]:
    path = state.plan.rules
    try:
        # As for the shelf, it need not exist.
        text = path.read_text("utf-8") if path and path.exists() else ""
        rules = tomllib.loads(text).get("rule", [])
    except (OSError, ValueError) as error:
        raise SettingsError(f"the rules {path} cannot be read: {error}") from error
    return {"rules": rules, "placements": state.placements.fields}
