"""The state machine of jobs and sweeps, as one table."""

from __future__ import annotations

from warploom.records import (
    CANCELLED,
    CANCELLING,
    FAILED,
    FINAL_STATES,
    PAUSED,
    PAUSING,
    QUEUED,
    RUNNING,
    STOPPING,
    SUCCEEDED,
)

# All legal moves: action -> {state before: state after}; what is not here is refused. A state that leads to itself: the
# repeat changes nothing. The scripts are handed the row that they need and know no moves of their own. Only sweeps are
# asked to stop: what they found so far is then their result.
MOVES: dict[str, dict[str, str]] = {
    "claim": {QUEUED: RUNNING, RUNNING: RUNNING, PAUSING: PAUSING, STOPPING: STOPPING, CANCELLING: CANCELLING},
    "release": {
        RUNNING: QUEUED,
        PAUSING: PAUSED,
        STOPPING: STOPPING,
        CANCELLING: CANCELLING,
        QUEUED: QUEUED,
        PAUSED: PAUSED,
    },
    "pause": {QUEUED: PAUSED, RUNNING: PAUSING, PAUSING: PAUSING, PAUSED: PAUSED},
    "resume": {PAUSED: QUEUED, PAUSING: RUNNING, QUEUED: QUEUED, RUNNING: RUNNING},
    "stop": {
        QUEUED: STOPPING,
        RUNNING: STOPPING,
        PAUSING: STOPPING,
        PAUSED: STOPPING,
        STOPPING: STOPPING,
        SUCCEEDED: SUCCEEDED,
        CANCELLED: CANCELLED,
    },
    "cancel": {
        QUEUED: CANCELLED,
        RUNNING: CANCELLING,
        PAUSING: CANCELLING,
        STOPPING: CANCELLING,
        PAUSED: CANCELLED,
        CANCELLING: CANCELLING,
        CANCELLED: CANCELLED,
    },
    SUCCEEDED: {
        RUNNING: SUCCEEDED,
        PAUSING: SUCCEEDED,
        STOPPING: SUCCEEDED,
        CANCELLING: SUCCEEDED,
        SUCCEEDED: SUCCEEDED,
    },
    FAILED: {RUNNING: FAILED, PAUSING: FAILED, STOPPING: FAILED, CANCELLING: FAILED, FAILED: FAILED},
    CANCELLED: {STOPPING: CANCELLED, CANCELLING: CANCELLED, CANCELLED: CANCELLED},
}
STATES = frozenset({QUEUED, RUNNING, PAUSING, PAUSED, STOPPING, CANCELLING}) | FINAL_STATES


def moves_arg(action: str) -> str:
    """One row of `MOVES` as the scripts read it."""
    return ",".join(f"{before}>{after}" for before, after in MOVES[action].items())
