"""Telling what a job did to itself from what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from warploom.errors import OutOfMemory, TrainingFailed, WarploomError

NO_ROOM = ("can't allocate memory", "not enough memory")  # how torch says it on a CPU


@contextmanager
def job_code(what: str) -> Iterator[None]:
    """A stretch of the job's own computation: its task family, its model, its algorithm.

    Args:
        what: the stretch, for the message.

    Raises:
        OutOfMemory: there was not enough memory.
        TrainingFailed: for all else that is raised inside; errors of our own pass.

    Example:
        >>> with job_code("the rollout of unit 3"):
        ...     1 / 0
        Traceback (most recent call last):
        warploom.errors.TrainingFailed: the rollout of unit 3 raised ZeroDivisionError: division by zero
    """
    try:
        yield
    except WarploomError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"{what} needs more memory than there is: {_first_line(error)}") from error
        raise TrainingFailed(f"{what} raised {type(error).__name__}: {_first_line(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was lacking, of the machine or of an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_ROOM)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
