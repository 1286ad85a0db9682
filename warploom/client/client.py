"""`Client`: one method per thing that the service does."""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from warploom.client import endpoint, events
from warploom.client.transport import IDEMPOTENCY_KEY, Transport
from warploom.errors import InvalidInput, TimedOut, WireError
from warploom.records import FINAL_STATES, Adaptation, Catalog, Event, Job, Metrics, Model, Page, Prediction, Sweep
from warploom.spec import JobSpec, SweepSpec

RecordT = TypeVar("RecordT", bound=BaseModel)
LastingT = TypeVar("LastingT", Job, Sweep)
NPZ = {"Content-Type": "application/x-npz"}
LONGEST_POLL_S = 2.0


class Client:
    """A connection to a Warploom service.

    Args:
        url: where it is; default `WARPLOOM_URL`, then the credentials file of a local service.
        api_key: default `WARPLOOM_API_KEY`, then the same file.
        timeout_s: longest wait for one answer.
        transport: transport of httpx to use instead of the network (tests).

    Raises (every method):
        WarploomError: the subclass that the service's problem document names; `field`, `rule` and `value` say what
            is wrong.
        Unavailable: the service cannot be reached.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(endpoint.find(url, api_key), timeout_s, transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service's address."""
        return self._transport.endpoint.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.http.close()

    # ---------------------------------------------------------------- jobs

    def submit(self, spec: JobSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Queue a meta-training job.

        Args:
            spec: the job.
            idempotency_key: makes a repeat within 24 hours answer with the job that is there; default: a new one, so
                that a connection that breaks is tried again without a second job.
        """
        return self._post("/v1/jobs", Job, json=_document(spec), headers=_once(idempotency_key))

    def job(self, id: str) -> Job:
        """The job as it stands."""
        return self._get(f"/v1/jobs/{_part(id)}", Job)

    def jobs(self, limit: int = 20, after: str | None = None, state: str | None = None) -> Page[Job]:
        """Jobs, newest first. `after` is the last id of the page before."""
        return self._get("/v1/jobs", Page[Job], limit=limit, after=after, state=state)

    def pause(self, id: str) -> Job:
        """Let a job rest; a repeat changes nothing."""
        return self._post(f"/v1/jobs/{_part(id)}/pause", Job)

    def resume(self, id: str) -> Job:
        """Queue a paused job again; a repeat changes nothing."""
        return self._post(f"/v1/jobs/{_part(id)}/resume", Job)

    def cancel(self, id: str) -> Job:
        """Ask a job to stop; the last checkpoint stays."""
        return self._post(f"/v1/jobs/{_part(id)}/cancel", Job)

    def events(self, id: str, after: str | None = None) -> Iterator[Event]:
        """The job's events as they happen, until the last; reconnects by itself and misses none."""
        return events.follow(self._transport, _part(id), after, lambda: self.job(id).state in FINAL_STATES)

    def metrics(self, id: str, keys: Sequence[str] = (), from_step: int = 0, max_points: int | None = None) -> Metrics:
        """The job's numbers over its rounds: those of rounds by name, those of evaluations as `held_out/<name>`.

        Args:
            id: the job.
            keys: only these; empty for all.
            from_step: the first round.
            max_points: most points of each curve; default the service's.
        """
        path, wanted = f"/v1/jobs/{_part(id)}/metrics", list(keys) or None
        return self._get(path, Metrics, keys=wanted, from_step=from_step, max_points=max_points)

    def wait(self, id: str, timeout_s: float | None = None) -> Job:
        """The job once it has succeeded, failed or been cancelled.

        Raises:
            TimedOut: it had not ended after `timeout_s` seconds.
        """
        return self._until_final(lambda: self.job(id), f"job {id}", timeout_s)

    # -------------------------------------------------------------- models

    def models(self) -> list[Model]:
        """The latest version of every model."""
        return self._get("/v1/models", Page[Model]).data

    def model(self, name: str, version: int | None = None) -> Model:
        """One model; the latest version unless given."""
        return self._get(f"/v1/models/{_part(name)}", Model, version=version)

    def download(self, name: str, version: int | None = None) -> bytes:
        """The model's weights as safetensors bytes, checked against the service's checksum."""
        return self._weights(f"/v1/models/{_part(name)}/weights", name, version=version)

    def adapt(
        self,
        model: str,
        support_x: ArrayLike,
        support_y: ArrayLike,
        query_x: ArrayLike | None = None,
        steps: int | None = None,
        lr: float | None = None,
        seed: int | None = None,
        version: int | None = None,
    ) -> Adaptation:
        """Adapt a model to one task and, with `query_x`, predict its queries.

        Args:
            model: its name.
            support_x: the task's examples, [S, *input].
            support_y: their labels 0 … N-1 ([S]) or targets ([S, outputs]).
            query_x: examples to predict, [Q, *input].
            steps: steps of adaptation; default the model's own. 0 predicts without adapting.
            lr: step size; default the model's own.
            seed: seed of the minibatches.
            version: the model's version; default the latest.
        """
        arrays = {"support_x": support_x, "support_y": support_y}
        if query_x is not None:
            arrays["query_x"] = query_x
        return self._post(
            f"/v1/models/{_part(model)}/adapt",
            Adaptation,
            content=_npz(arrays),
            headers=NPZ,
            params=_given(steps=steps, lr=lr, seed=seed, version=version),
        )

    def adaptation(self, id: str) -> Adaptation:
        """An adaptation that the service still keeps."""
        return self._get(f"/v1/adaptations/{_part(id)}", Adaptation)

    def adapted_weights(self, id: str) -> bytes:
        """Adapted parameters (`p/<name>`) and normalising statistics (`s/<name>`) as safetensors bytes, checked.

        Example:
            >>> from safetensors.torch import load                               # doctest: +SKIP
            >>> tensors = load(client.adapted_weights(adapted.id))               # doctest: +SKIP
            >>> params = {name[2:]: tensors[name] for name in tensors if name.startswith("p/")}  # doctest: +SKIP
        """
        return self._weights(f"/v1/adaptations/{_part(id)}/weights", id)

    def forget(self, id: str) -> None:
        """Drop an adaptation before it expires."""
        self._transport.request("DELETE", f"/v1/adaptations/{_part(id)}")

    def predict(self, adaptation_id: str, query_x: ArrayLike) -> Prediction:
        """More queries for a model that was adapted before."""
        path = f"/v1/adaptations/{_part(adaptation_id)}/predict"
        return self._post(path, Prediction, content=_npz({"query_x": query_x}), headers=NPZ)

    # -------------------------------------------------------------- sweeps

    def sweep(self, spec: SweepSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Sweep:
        """Queue a search over fields of a job; `idempotency_key` as for `submit`."""
        return self._post("/v1/sweeps", Sweep, json=_document(spec), headers=_once(idempotency_key))

    def sweeps(self, limit: int = 20, after: str | None = None) -> Page[Sweep]:
        """Sweeps, newest first."""
        return self._get("/v1/sweeps", Page[Sweep], limit=limit, after=after)

    def get_sweep(self, id: str) -> Sweep:
        """The sweep as it stands, with its trials."""
        return self._get(f"/v1/sweeps/{_part(id)}", Sweep)

    def cancel_sweep(self, id: str) -> Sweep:
        """Ask a sweep to stop."""
        return self._post(f"/v1/sweeps/{_part(id)}/cancel", Sweep)

    def wait_sweep(self, id: str, timeout_s: float | None = None) -> Sweep:
        """The sweep once it has ended. Raises TimedOut as `wait` does."""
        return self._until_final(lambda: self.get_sweep(id), f"sweep {id}", timeout_s)

    # ------------------------------------------------------------- service

    def catalog(self) -> Catalog:
        """All algorithms, task families and models that the service knows."""
        return self._get("/v1/catalog", Catalog)

    def limits(self) -> dict[str, Any]:
        """The service's limits."""
        return dict(self._transport.request("GET", "/v1/limits").json())

    def health(self) -> dict[str, Any]:
        """Which parts of the service are up. Raises Unavailable when it is not ready to work."""
        return dict(self._transport.request("GET", "/readyz").json())

    # ------------------------------------------------------------- helpers

    def _weights(self, path: str, what: str, **params: Any) -> bytes:
        answer = self._transport.request("GET", path, params=_given(**params))
        expected = answer.headers.get("X-Content-SHA256")
        if expected and hashlib.sha256(answer.content).hexdigest() != expected:
            raise WireError(f"the weights of {what!r} do not have the checksum that the service states")
        return answer.content

    def _get(self, path: str, kind: type[RecordT], **params: Any) -> RecordT:
        return _parse(kind, self._transport.request("GET", path, params=_given(**params)))

    def _post(self, path: str, kind: type[RecordT], **options: Any) -> RecordT:
        return _parse(kind, self._transport.request("POST", path, **options))

    def _until_final(self, ask: Callable[[], LastingT], what: str, timeout_s: float | None) -> LastingT:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause = 0.1
        while (record := ask()).state not in FINAL_STATES:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"{what} is still {record.state} after {timeout_s:g} s", value=record.state)
            self._transport.pause(pause)
            pause = min(pause * 1.5, LONGEST_POLL_S)
        return record


def _parse(kind: type[RecordT], answer: httpx.Response) -> RecordT:
    try:
        return kind.model_validate_json(answer.content)
    except ValueError:
        raise WireError(f"the answer from {answer.url} is not what a Warploom service says") from None


def _document(spec: JobSpec | SweepSpec | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec)


def _once(key: str | None) -> dict[str, str]:
    return {IDEMPOTENCY_KEY: key or uuid.uuid4().hex}


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _part(name: str) -> str:
    # "." and ".." would be resolved away by URL rules and reach another route.
    if name in {"", ".", ".."}:
        raise InvalidInput(f"not a name: {name!r}", field="/name", rule="at least one letter", value=name)
    return quote(name, safe="")


def _npz(arrays: Mapping[str, ArrayLike]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: _numbers(name, value) for name, value in arrays.items()})  # type: ignore[arg-type]
    return file.getvalue()


def _numbers(name: str, value: ArrayLike) -> NDArray[Any]:
    # Refused here because numpy would store anything else as a pickle.
    try:
        array = np.asarray(value)
        found = f"dtype {array.dtype}"
    except ValueError as error:
        array, found = np.empty(0, object), str(error)
    if array.dtype.kind in "biuf":
        return array
    raise InvalidInput(
        f"{name} must hold numbers, in rows of equal length; got {found}",
        field=f"/{name.replace('_', '/')}",
        rule="an array of numbers",
        value=str(array.dtype),
    )
