"""How much memory a computation takes at its peak."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made by `call` hold at one time, on the CPU, in this thread.

    Counted from the events of torch's own allocator. So it is the same at each call, down to the byte; it sees what
    `torch.func` keeps for derivatives, where hooks on saved tensors are refused; and neither the size of a page nor
    memory that the allocator keeps back blurs it, as they do the peak of a process.

    Example:
        >>> import torch
        >>> peak_bytes(lambda: torch.zeros(1000).sum()) // 1000
        4
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    found = profiled.profiler
    assert found is not None
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
