"""The edge to Ray: starting it, starting actors, watching and ending them. The only file that says `ray.remote`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray
import ray._private.worker
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from warploom.errors import OutOfMemory, SetupError, WarploomError
from warploom.guard import is_out_of_memory

STORE_BYTES = 128 * 2**20  # data goes through Redis; Ray's own store carries results of a few bytes
LEAST_SLOTS = 16
VITAL = frozenset({"raylet", "gcs_server"})
# How long an OpenMP thread spins for the others before it sleeps. With libgomp's own value, 30 times this, a learner of
# two threads crawls as soon as another process takes one of its two cores: 1,232 ms for a meta-gradient of the Omniglot
# net in place of 148 ms alone. With this one: 331 ms, and 173 ms alone.
SPIN = ("GOMP_SPINCOUNT", "10000")


def start_ray(address: str | None, *, cpus: int | None = None) -> None:
    """Join the cluster at `address`, or start one on this machine that ends with this process.

    Args:
        address: `auto` or `host:port`; None for a cluster of one's own.
        cpus: slots of an own cluster. CPUs are slots and not cores there: at least 16, so that a job with more
            actors than cores runs slowly instead of not at all.

    Raises:
        SetupError: it does not start, or cannot be reached. Parts of it may be there until this process ends.
    """
    os.environ.setdefault(*SPIN)  # before Ray starts: its workers inherit it
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    slots = cpus or max(LEAST_SLOTS, os.cpu_count() or 1)
    own = {"num_cpus": slots, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(**({"address": address} if address is not None else own), **quiet)
    except Exception as error:  # of many kinds; a busy machine's is a bare one, when a node is not up after 30 s
        raise SetupError(f"Ray does not start: {_first_line(error)}") from error


def check_ray() -> None:
    """See that an own Ray lives; one that was joined is watched by whoever started it.

    Raises:
        RayLost: a part of it died that it cannot do without.
    """
    node = getattr(ray._private.worker, "_global_node", None)
    for kind, _ in node.dead_processes() if node is not None else ():
        if kind in VITAL:
            raise RayLost(f"Ray's {kind} died")


def stop_ray() -> None:
    """Leave the cluster, or end an own one."""
    ray.shutdown()


def start_actor(kind: type, *args: Any, cpus: float, gpus: float = 0.0, **options: Any) -> Any:
    """A new actor of class `kind`; it is not restarted by Ray, because its owner decides what a death means."""
    return ray.remote(kind).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, **options).remote(*args)


def available_gpus(wanted: float) -> float:
    """`wanted` GPUs, or none when no node of the cluster has any: the work is then done on CPUs."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return wanted if resources.get("GPU", 0.0) > 0 else 0.0


def call(actor: Any, method: str, *args: Any) -> Any:
    """Start `actor.method(*args)`; the future to give to `finished`."""
    return getattr(actor, method).remote(*args)


def finished(futures: Sequence[Any], timeout_s: float) -> list[Any]:
    """The futures that have a result or an error, after at most `timeout_s`."""
    if not futures:
        return []
    done, _ = ray.wait(list(futures), num_returns=len(futures), timeout=timeout_s)
    return list(done) or list(ray.wait(list(futures), num_returns=1, timeout=0)[0])


def result(future: Any) -> Any:
    """The result of a finished future.

    Raises:
        ActorLost: its process died, or cannot be reached.
        OutOfMemory: it needed more memory than there is.
        WarploomError: raised by the method.
    """
    try:
        return ray.get(future)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, WarploomError):
            raise cause from None
        if is_out_of_memory(cause):
            raise OutOfMemory(f"{type(cause).__name__}: {cause}") from error
        raise WarploomError(f"{type(cause).__name__}: {cause}") from error
    except OutOfMemoryError as error:
        raise OutOfMemory(f"ended by Ray, because its node ran out of memory: {_first_line(error)}") from None
    except RayError as error:
        raise ActorLost(_why(error)) from None


def _why(error: Exception) -> str:
    """Ray's first line says it, unless the actor could not even be made: then the last one names the error."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"it could not be made: {lines[-1]}" if "creation task" in lines[0] else lines[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def kill(actor: Any) -> None:
    """End an actor at once; a dead one is no error."""
    ray.kill(actor, no_restart=True)


class RayLost(Exception):
    """The Ray that this process started cannot work any more."""


class ActorLost(Exception):
    """An actor's process died."""
