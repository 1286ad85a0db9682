"""Tasks side by side on the cores of one process.

A convolution on the batch of one task is too small for several threads to share well; several tasks, each on one
core, share perfectly, and the numbers are the same for any number of cores. So a process that works task by task
keeps torch at one thread within such a call, and runs the tasks in a pool.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

ResultT = TypeVar("ResultT")


class _Mine(threading.local):
    """What one thread of the pool owns."""

    def __init__(self) -> None:
        self.in_pool = False
        self.copies: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


_mine = _Mine()
_pool: ThreadPoolExecutor | None = None
_size = 1


def use_threads(count: int) -> None:
    """Let this process use `count` cores: torch's own threads, and as many tasks side by side.

    Args:
        count: at least 1.
    """
    global _pool, _size  # noqa: PLW0603
    torch.set_num_threads(count)
    if _pool is not None:
        _pool.shutdown(wait=False)
    _pool = ThreadPoolExecutor(count, "tasks", _enter) if count > 1 else None
    _size = count


def own_module(module: nn.Module) -> nn.Module:
    """`module`, or in a thread of the pool that thread's own copy.

    A call with parameters from outside puts them into the module while it runs, so two threads cannot share one.
    """
    if not _mine.in_pool:
        return module
    if module not in _mine.copies:
        _mine.copies[module] = copy.deepcopy(module)
    return _mine.copies[module]


def side_by_side(calls: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """The results of all calls, in order; in the pool where that is possible, else one after the other.

    Inside a `torch.func` transform, or inside the pool itself, calls stay in the thread that they are in, because
    transforms belong to a thread.
    """
    if _pool is None or len(calls) < 2 or _mine.in_pool or _transforming():
        return [call() for call in calls]
    enabled = torch.is_grad_enabled()

    def run(call: Callable[[], ResultT]) -> ResultT:
        with torch.set_grad_enabled(enabled):
            return call()

    return list(_pool.map(run, calls))


def _enter() -> None:
    _mine.in_pool = True
    torch.set_num_threads(1)


def _transforming() -> bool:
    return torch._C._functorch.maybe_current_level() is not None
