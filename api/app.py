"""The application: routes, errors, middleware and pages put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api import answers, document, errors, examples, pages
from api.deps import Access, KnownQuery
from api.hooks import Dispatcher
from api.metrics import Metrics
from api.middleware import Audit, BearerAuth, BodyGuard, RequestContext
from api.routes import (
    account,
    adaptations,
    audit,
    catalog,
    checkpoints,
    events,
    health,
    jobs,
    keys,
    logs,
    models,
    sweeps,
    webhooks,
)
from api.state import Services
from service.connection import Connections
from service.settings import Settings
from service.tenancy import ADAPT, ADMIN, JOBS_READ, JOBS_WRITE
from service.usage import FLUSH_S
from warploom import __version__

DESCRIPTION = """
Submit meta-training jobs, follow them live, and adapt the models they make to new tasks from a few examples.

Every request under `/v1` needs `Authorization: Bearer <key>`. Every refusal is an RFC 9457 problem document whose
`errors` name the field (a JSON pointer), the rule and the value.
"""

_JOBS = Access(read=(JOBS_READ,), write=(JOBS_WRITE,))
# All of /v1. A router that is not here is not served, so no route is without an answer to who may use it.
ROUTERS = (
    (jobs.router, _JOBS),
    (events.router, _JOBS),
    (logs.router, _JOBS),
    (checkpoints.router, _JOBS),
    (sweeps.router, _JOBS),
    (models.router, Access(read=(JOBS_READ, ADAPT), write=(JOBS_WRITE,))),
    (adaptations.router, Access(read=(ADAPT,), write=(ADAPT,))),
    (webhooks.router, _JOBS),
    (catalog.router, Access()),
    (keys.router, Access(read=(ADMIN,), write=(ADMIN,))),
    (account.router, Access()),
    (audit.router, Access(read=(ADMIN,), write=(ADMIN,))),
)


def create_app(settings: Settings, connections: Connections) -> FastAPI:
    """The API over these connections.

    Args:
        settings: limits, and the URLs for asynchronous readers.
        connections: both Redis servers; the caller closes them.
    """
    services = Services.over(settings, connections)
    app = FastAPI(
        title="Warploom",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        generate_unique_id_function=operation_id,
        redoc_url=None,
    )
    app.state.services = services
    app.state.metrics = Metrics(services)
    errors.install(app, document.allowed)
    # For the documentation only: `BearerAuth` decides, before a body is read.
    bearer = Depends(HTTPBearer(auto_error=False, description="the API key"))
    for router, access in ROUTERS:
        needed = [bearer, Depends(access.check), KnownQuery]
        app.include_router(router, prefix="/v1", dependencies=needed)
    app.include_router(health.router)
    pages.install(app)
    document.complete(app, ROUTERS)
    examples.install(app, answers.add)
    # The last one added is the outermost.
    app.add_middleware(BodyGuard, settings=settings, charge=services.charge)
    app.add_middleware(Audit, write=services.audit.append)
    app.add_middleware(BearerAuth, admit=services.admit)
    app.add_middleware(RequestContext, metrics=app.state.metrics)
    return app


def operation_id(route: APIRoute) -> str:
    """A name of the operation that stays when a path or the order of routes changes: `jobs_submit`."""
    return f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.open()
    counting = asyncio.create_task(_write_usage(services))
    dispatcher = Dispatcher(services.webhooks, services.settings.allowed_hosts)
    dispatcher.start()
    yield
    await dispatcher.close()
    counting.cancel()
    await run_in_threadpool(services.usage.flush)
    await services.close()


async def _write_usage(services: Services) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        await run_in_threadpool(services.usage.flush)
