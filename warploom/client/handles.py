"""Jobs, sweeps and adaptations as a client gives them: the service's records, with helpers that ask again.

A helper leaves the object as it is and returns what the service says now.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, overload

from pydantic import PrivateAttr

from warploom import records
from warploom.client import adaptations as adapt_plans
from warploom.client import jobs, sweeps
from warploom.client.calls import Call
from warploom.client.core import Core
from warploom.client.operations import Async, Listing, Operation, Owner, Sync, listing, of_id, operation, stream

P = ParamSpec("P")


@overload
def job(plan: Callable[P, Call[records.Job]]) -> Operation[P, Job, AsyncJob]: ...
@overload
def job(plan: Callable[Concatenate[Core, P], Coroutine[Any, Any, records.Job]]) -> Operation[P, Job, AsyncJob]: ...
def job(plan: Callable[..., Any]) -> Any:
    """An operation that gives a job."""
    return Operation(plan)


def job_listing(plan: Callable[P, Call[records.Page[records.Job]]]) -> Listing[P, Job, AsyncJob]:
    """A listing of jobs."""
    return Listing(plan)


@overload
def sweep(plan: Callable[P, Call[records.Sweep]]) -> Operation[P, Sweep, AsyncSweep]: ...
@overload
def sweep(
    plan: Callable[Concatenate[Core, P], Coroutine[Any, Any, records.Sweep]],
) -> Operation[P, Sweep, AsyncSweep]: ...
def sweep(plan: Callable[..., Any]) -> Any:
    """An operation that gives a sweep."""
    return Operation(plan)


def sweep_listing(plan: Callable[P, Call[records.Page[records.Sweep]]]) -> Listing[P, Sweep, AsyncSweep]:
    """A listing of sweeps."""
    return Listing(plan)


def adaptation(
    plan: Callable[Concatenate[Core, P], Coroutine[Any, Any, records.Adaptation]],
) -> Operation[P, Adaptation, AsyncAdaptation]:
    """An operation that gives an adaptation."""
    return Operation(plan)


def adaptations(
    plan: Callable[Concatenate[Core, P], Coroutine[Any, Any, list[records.Adaptation]]],
) -> Operation[P, list[Adaptation], list[AsyncAdaptation]]:
    """An operation that gives several adaptations."""
    return Operation(plan)


class JobHelpers(Owner):
    """What a job can be asked."""

    refresh = of_id(job(jobs.one))
    wait = of_id(job(jobs.wait))
    pause = of_id(job(jobs.pause))
    resume = of_id(job(jobs.resume))
    cancel = of_id(job(jobs.cancel))
    events = of_id(stream(jobs.follow))
    history = of_id(listing(jobs.history))
    metrics = of_id(operation(jobs.metrics))
    logs = of_id(operation(jobs.logs))
    follow_logs = of_id(stream(jobs.follow_logs))
    checkpoints = of_id(operation(jobs.checkpoints))
    download_checkpoint = of_id(operation(jobs.download_checkpoint))
    lineage = of_id(operation(jobs.lineage))
    note = of_id(job(jobs.note))


class SweepHelpers(Owner):
    """What a sweep can be asked."""

    refresh = of_id(sweep(sweeps.one))
    wait = of_id(sweep(sweeps.wait))
    pause = of_id(sweep(sweeps.pause))
    resume = of_id(sweep(sweeps.resume))
    stop = of_id(sweep(sweeps.stop))
    cancel = of_id(sweep(sweeps.cancel))
    promote = of_id(operation(sweeps.promote))
    events = of_id(stream(sweeps.follow))
    history = of_id(listing(sweeps.history))
    note = of_id(sweep(sweeps.note))


class AdaptationHelpers(Owner):
    """What an adaptation can be asked while the service keeps it."""

    predict = of_id(operation(adapt_plans.predict))
    predict_pictures = of_id(operation(adapt_plans.predict_pictures))
    weights = of_id(operation(adapt_plans.adapted_weights))
    forget = of_id(operation(adapt_plans.forget))


class SyncOwner(Sync):
    """Gives objects whose helpers block."""

    def _bound(self, result: Any) -> Any:
        return bind(result, self._core, KINDS)


class AsyncOwner(Async):
    """Gives objects whose helpers are awaited."""

    def _bound(self, result: Any) -> Any:
        return bind(result, self._core, ASYNC_KINDS)


class Job(records.Job, JobHelpers, SyncOwner):
    """A job of a blocking client."""

    _core: Core = PrivateAttr()


class AsyncJob(records.Job, JobHelpers, AsyncOwner):
    """A job of an asynchronous client."""

    _core: Core = PrivateAttr()


class Sweep(records.Sweep, SweepHelpers, SyncOwner):
    """A sweep of a blocking client."""

    _core: Core = PrivateAttr()


class AsyncSweep(records.Sweep, SweepHelpers, AsyncOwner):
    """A sweep of an asynchronous client."""

    _core: Core = PrivateAttr()


class Adaptation(records.Adaptation, AdaptationHelpers, SyncOwner):
    """An adaptation of a blocking client."""

    _core: Core = PrivateAttr()


class AsyncAdaptation(records.Adaptation, AdaptationHelpers, AsyncOwner):
    """An adaptation of an asynchronous client."""

    _core: Core = PrivateAttr()


Kinds = Mapping[type[records.Record], type[Any]]
KINDS: Kinds = {records.Job: Job, records.Sweep: Sweep, records.Adaptation: Adaptation}
ASYNC_KINDS: Kinds = {records.Job: AsyncJob, records.Sweep: AsyncSweep, records.Adaptation: AsyncAdaptation}


def bind(result: Any, core: Core, kinds: Kinds) -> Any:
    """A record with its helpers; what has none as it is."""
    if isinstance(result, list):
        return [bind(item, core, kinds) for item in result]
    kind = kinds.get(type(result))
    if kind is None:
        return result
    # Read and checked already: only its class changes.
    bound = kind.model_construct(result.model_fields_set, **result.__dict__)
    bound._core = core
    return bound
