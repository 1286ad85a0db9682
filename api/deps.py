"""What routes may ask for, as annotated aliases.

All are coroutines: the framework runs plain functions on a thread, which takes longer than they do.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple, cast

from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import Field

from api.errors import UnsupportedMediaType
from api.middleware import CALLER
from api.state import Services
from service.listing import Order, Wanted
from service.tenancy import Caller
from warploom.configs import Config
from warploom.errors import Forbidden, InvalidInput
from warploom.spec import MOST_PAIRS, NAME_PATTERN

JSON = "application/json"


class Access(NamedTuple):
    """What a key needs for the routes of one router: any one of these scopes; none: any key will do."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def needed(self, method: str) -> tuple[str, ...]:
        """The scopes of which a request with this method needs one."""
        return self.read if method in ("GET", "HEAD") else self.write

    async def check(self, request: Request) -> None:
        """Refuse a key without the scope."""
        caller: Caller = request.scope[CALLER]
        needed = self.needed(request.method)
        if needed and caller.scopes.isdisjoint(needed):
            rule = f"a key with scope {' or '.join(needed)}"
            held = " ".join(sorted(caller.scopes))
            raise Forbidden(f"this needs {rule}", field="/headers/authorization", rule=rule, value=held)


async def services(request: Request) -> Services:
    """The parts of the service, as the caller sees them: another tenant's objects are not there."""
    everything = cast("Services", request.app.state.services)
    caller: Caller | None = request.scope.get(CALLER)
    return everything if caller is None else everything.of(caller)


async def caller_of(request: Request) -> Caller:
    """Whose key the request carries."""
    return cast("Caller", request.scope[CALLER])


def content_type(request: Request) -> str:
    """The body's media type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def only_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON."""
    found = content_type(request)
    if found != JSON:
        raise unsupported(found, JSON)


def unsupported(found: str, *accepted: str) -> UnsupportedMediaType:
    """The refusal of a media type."""
    rule = "one of: " + ", ".join(accepted) if len(accepted) > 1 else accepted[0]
    return UnsupportedMediaType(
        f"Content-Type must be {rule}", field="/headers/content-type", rule=rule, value=found or None
    )


BYTES = "application/octet-stream"
BINARY: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}
}


def attachment(blob: bytes, name: str, sha256: str) -> Response:
    """A file to keep, with its checksum."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-SHA256": sha256,
        "ETag": f'"{sha256}"',
    }
    return Response(blob, media_type=BYTES, headers=headers)


async def _sent(request: Request) -> Any:
    """The JSON body as it came."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):  # the framework refuses such a body right after this
        return None


Sent = Annotated[Any, Depends(_sent)]


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not have: a misspelt filter would silently show too much."""
    route = request.scope["route"]
    if route.unique_id not in _KNOWN:
        _KNOWN[route.unique_id] = _query_names(route)
    known = _KNOWN[route.unique_id]
    pairs_too = METADATA_PARAMETER["name"] in known
    for name in request.query_params:
        if name == "metadata" or (name not in known and not (pairs_too and METADATA.match(name))):
            rule = f"one of: {', '.join(sorted(known))}" if known else "no query parameters"
            message = f"/{name}: unknown query parameter; {rule}"
            raise InvalidInput(message, field=f"/{name}", rule=rule, value=request.query_params[name])


_KNOWN: dict[str, frozenset[str]] = {}  # by operation, because a walk for each request would take longer than the rest


def _query_names(route: Any) -> frozenset[str]:
    written = (route.openapi_extra or {}).get("parameters", [])
    by_hand = {parameter["name"] for parameter in written if parameter["in"] == "query"}
    return frozenset(by_hand.union(*map(_asked, _flat(route.dependant))))


def _flat(dependant: Any) -> list[Any]:
    """A route's dependencies with all that they depend on."""
    return [dependant, *(deeper for one in dependant.dependencies for deeper in _flat(one))]


def _asked(dependant: Any) -> set[str]:
    return {field.alias for field in dependant.query_params}


KnownQuery = Depends(known_query)
ServicesDep = Annotated[Services, Depends(services)]
CallerDep = Annotated[Caller, Depends(caller_of)]
JsonOnly = Depends(only_json)


async def _metadata(request: Request) -> dict[str, str]:
    """The pairs in `metadata[name]=value`."""
    found = ((METADATA.match(key), value) for key, value in request.query_params.items())
    return {match[1]: value for match, value in found if match}


METADATA = re.compile(r"^metadata\[([^\[\]]{1,64})\]$")
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "only those that have all of these pairs: `metadata[name]=value`",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
LISTED: dict[str, Any] = {"parameters": [METADATA_PARAMETER]}
Limit = Annotated[int, Query(ge=1, le=1000, description="most entries in the answer")]
After = Annotated[str | None, Query(max_length=100, description="id of the last entry that is known")]
State = Annotated[str | None, Query(max_length=40, description="only those in this state")]
Moment = Query(ge=0, le=1e11, allow_inf_nan=False, description="seconds since the epoch")
Pairs = Annotated[dict[str, str], Depends(_metadata)]
OrderQuery = Annotated[Order | None, Query(description="of the entries; default: newest first, models by name")]


class Filters(NamedTuple):
    """What all lists with a time and metadata take."""

    order: Order | None
    created_after: float | None
    created_before: float | None
    metadata: dict[str, str]


async def _filters(
    pairs: Pairs,
    order: OrderQuery = None,
    created_after: Annotated[float | None, Moment] = None,
    created_before: Annotated[float | None, Moment] = None,
) -> Filters:
    return Filters(order, created_after, created_before, pairs)


FiltersDep = Annotated[Filters, Depends(_filters)]


async def _wanted(filters: FiltersDep, limit: Limit = 20, after: After = None, state: State = None) -> Wanted:
    return Wanted(limit=limit, after=after, state=state, **filters._replace(order=filters.order or "desc")._asdict())


async def _wanted_models(
    filters: FiltersDep,
    limit: Limit = 100,
    after: Annotated[str | None, Query(pattern=NAME_PATTERN, description="name of the last model known")] = None,
) -> Wanted:
    return Wanted(limit=limit, after=after, **filters._replace(order=filters.order or "asc")._asdict())


WantedDep = Annotated[Wanted, Depends(_wanted)]
WantedModels = Annotated[Wanted, Depends(_wanted_models)]


class Notes(Config):
    """Changes of metadata: pairs to set; null removes one."""

    metadata: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)] | None] = (
        Field(max_length=2 * MOST_PAIRS)
    )


Once = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="your own key for this request: a repeat within 24 hours makes nothing and answers with what the "
        "first one made",
    ),
]
Id = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
MODEL_REF = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"
ModelRef = Annotated[str, Path(pattern=MODEL_REF, description="a name, or with an alias or version: `sine@stable`")]
ModelName = Annotated[str, Path(pattern=NAME_PATTERN)]
Version = Annotated[int | None, Query(ge=1, description="default: the latest")]
