"""What a failed job tells: code, message, whose fault, and whether trying again may help."""

from __future__ import annotations

from warploom.errors import (
    DataMissing,
    InvalidInput,
    OutOfMemory,
    RuntimeExceeded,
    Stalled,
    TrainingFailed,
    WarploomError,
)
from warploom.records import Failure

# (category, retryable) by error; the first that fits counts, and what is not here is the service's own fault.
BLAME: tuple[tuple[type[WarploomError], str, bool], ...] = (
    (InvalidInput, "user", False),
    (DataMissing, "user", False),
    (TrainingFailed, "user", False),
    (RuntimeExceeded, "user", False),
    (Stalled, "user", True),
    (OutOfMemory, "capacity", True),
)


def failure_of(error: WarploomError) -> Failure:
    """The record of an error that ended a job.

    Example:
        >>> failure_of(OutOfMemory("the rollout of unit 3 needs more memory than there is")).category
        'capacity'
    """
    fitting = ((category, retryable) for kind, category, retryable in BLAME if isinstance(error, kind))
    category, retryable = next(fitting, ("system", True))
    return Failure(code=error.code, message=error.message, category=category, retryable=retryable)
