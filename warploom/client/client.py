"""`Client` and `AsyncClient`: one table of operations, two ways to call them."""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Self

import httpx

from warploom.client import adaptations as adapt_plans
from warploom.client import endpoint, handles
from warploom.client import jobs as job_plans
from warploom.client import keys as key_plans
from warploom.client import models as model_plans
from warploom.client import service as service_plans
from warploom.client import sweeps as sweep_plans
from warploom.client import webhooks as hook_plans
from warploom.client.core import Core, headers_of
from warploom.client.handles import AsyncOwner, SyncOwner
from warploom.client.operations import Owner, listing, operation, stream
from warploom.client.retries import MAX_RETRIES
from warploom.client.transport import Asynchronous, Blocking, finish

TIMEOUT_S = 120.0


class Operations(Owner):
    """All that a service can be asked. Each plan's docstring is in the module that it comes from."""

    submit = handles.job(job_plans.submit)
    job = handles.job(job_plans.one)
    jobs = handles.job_listing(job_plans.listing)
    pause = handles.job(job_plans.pause)
    resume = handles.job(job_plans.resume)
    cancel = handles.job(job_plans.cancel)
    wait = handles.job(job_plans.wait)
    events = stream(job_plans.follow)
    history = listing(job_plans.history)
    metrics = operation(job_plans.metrics)
    logs = operation(job_plans.logs)
    follow_logs = stream(job_plans.follow_logs)
    checkpoints = operation(job_plans.checkpoints)
    download_checkpoint = operation(job_plans.download_checkpoint)
    lineage = operation(job_plans.lineage)
    dry_run = operation(job_plans.check)
    note = handles.job(job_plans.note)

    models = operation(model_plans.listing)
    model_pages = listing(model_plans.pages)
    model = operation(model_plans.one)
    versions = operation(model_plans.versions)
    aliases = operation(model_plans.aliases)
    set_alias = operation(model_plans.set_alias)
    delete_alias = operation(model_plans.delete_alias)
    note_model = operation(model_plans.note)
    download = operation(model_plans.download)
    download_model = operation(model_plans.download_model)
    adapt = handles.adaptation(adapt_plans.adapt)
    adapt_many = handles.adaptations(adapt_plans.adapt_many)
    adapt_pictures = handles.adaptation(adapt_plans.adapt_pictures)
    adaptation = handles.adaptation(adapt_plans.adaptation)
    adapted_weights = operation(adapt_plans.adapted_weights)
    forget = operation(adapt_plans.forget)
    predict = operation(adapt_plans.predict)
    predict_pictures = operation(adapt_plans.predict_pictures)

    sweep = handles.sweep(sweep_plans.submit)
    sweeps = handles.sweep_listing(sweep_plans.listing)
    get_sweep = handles.sweep(sweep_plans.one)
    pause_sweep = handles.sweep(sweep_plans.pause)
    resume_sweep = handles.sweep(sweep_plans.resume)
    stop_sweep = handles.sweep(sweep_plans.stop)
    cancel_sweep = handles.sweep(sweep_plans.cancel)
    promote_trial = operation(sweep_plans.promote)
    sweep_events = stream(sweep_plans.follow)
    sweep_history = listing(sweep_plans.history)
    note_sweep = handles.sweep(sweep_plans.note)
    wait_sweep = handles.sweep(sweep_plans.wait)

    catalog = operation(service_plans.catalog)
    limits = operation(service_plans.limits)
    health = operation(service_plans.health)
    version = operation(service_plans.version)

    whoami = operation(key_plans.whoami)
    usage = operation(key_plans.usage)
    audit = listing(key_plans.audit)
    keys = listing(key_plans.listing)
    key = operation(key_plans.one)
    create_key = operation(key_plans.create)
    update_key = operation(key_plans.update)
    rotate_key = operation(key_plans.rotate)
    revoke_key = operation(key_plans.revoke)

    webhooks = operation(hook_plans.listing)
    webhook = operation(hook_plans.one)
    create_webhook = operation(hook_plans.create)
    update_webhook = operation(hook_plans.update)
    rotate_webhook = operation(hook_plans.rotate)
    delete_webhook = operation(hook_plans.remove)
    test_webhook = operation(hook_plans.test)
    deliveries = operation(hook_plans.deliveries)

    @property
    def url(self) -> str:
        """The service's address."""
        return self._core.url

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        # Connections and locks cannot be copied; scikit-learn copies the parameters of every estimator.
        return self

    def with_options(self, *, max_retries: int | None = None, timeout_s: float | None = None) -> Self:
        """The same client over the same connections, for calls with other options.

        Example:
            >>> client.with_options(max_retries=0, timeout_s=2).health()  # doctest: +SKIP
        """
        other = copy.copy(self)
        changes = {"max_retries": max_retries, "timeout_s": timeout_s}
        other._core = self._core.using(**{name: value for name, value in changes.items() if value is not None})
        return other


class Client(Operations, SyncOwner):
    """A connection to a Warploom service. May be used from several threads.

    Args:
        url: where it is; default `WARPLOOM_URL`, then the credentials file of a local service.
        api_key: default `WARPLOOM_API_KEY`, then the same file.
        timeout_s: longest wait for one answer.
        max_retries: how often a request is made again after a failure that may pass (`warploom.client.retries`).
        transport: transport of httpx to use instead of the network (tests).

    Raises (every method):
        WarploomError: the subclass that the service's problem document names; `field`, `rule` and `value` say what
            is wrong, `status`, `code` and `request_id` what the service answered.
        Unavailable: the service cannot be reached.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        where = endpoint.find(url, api_key)
        http = httpx.Client(base_url=where.url, headers=headers_of(where), transport=transport)
        self._core = Core(url=where.url, transport=Blocking(http), max_retries=max_retries, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        finish(self._core.transport.close())


class AsyncClient(Operations, AsyncOwner):
    """A connection to a Warploom service for asyncio: `Client` with every method awaited.

    Args, Raises: as for `Client`; `transport` is an asynchronous one.

    Example:
        >>> async with AsyncClient() as client:                        # doctest: +SKIP
        ...     job = await client.submit(spec)
        ...     async for event in job.events(): print(event.kind)
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        where = endpoint.find(url, api_key)
        http = httpx.AsyncClient(base_url=where.url, headers=headers_of(where), transport=transport)
        self._core = Core(url=where.url, transport=Asynchronous(http), max_retries=max_retries, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._core.transport.close()
