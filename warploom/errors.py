"""Every error that Warploom raises on purpose, on one page.

    WarploomError                      500  internal
    ├── InvalidInput                   422  invalid_input        the caller's value breaks a rule
    │   ├── UnfitPair                  422  unfit_pair           algorithm, task family and model do not go together
    │   └── WireError                  422  corrupt_payload      bytes that are not what they claim to be
    ├── Unauthenticated                401  unauthenticated
    ├── Forbidden                      403  forbidden            the key is known and may not do this
    ├── NotFound                       404  not_found
    ├── Conflict                       409  conflict             an illegal move of a state machine
    ├── TooLarge                       413  too_large
    ├── BodyTimeout                    408  request_timeout      the body came too slowly
    ├── RateLimited                    429  rate_limited         a key's limit is used up; carries when to try again
    ├── Unavailable                    503  unavailable          a part of the service is down or busy
    │   └── TimedOut                   504  timed_out
    ├── DataMissing                    424  data_missing         a data set's files are not where they should be
    ├── Fenced                         409  fenced               a newer generation owns the job
    ├── TrainingFailed                 500  training_failed      the job's own computation went wrong
    ├── ReplayCorrupt                  500  replay_corrupt       stored experience is unreadable again and again
    ├── OutOfMemory                    500  out_of_memory        the job needs more memory than there is
    ├── Stalled                        500  stalled              the job got nowhere for as long as its spec allows
    ├── RunsLost                       500  runs_lost            the job's processes died again and again
    ├── RuntimeExceeded                500  runtime_exceeded     the job ran for as long as its spec allows
    └── SetupError                     500  setup_error          this machine lacks a part that is needed

Each leaf carries its HTTP status and a stable code. All of them survive pickling, because Ray re-raises by pickling.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WarploomError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one sentence for a person.
        field: JSON pointer (`/algorithm/inner_lr`) or parameter name of what is wrong, when there is one.
        rule: the rule that was broken, in words.
        value: the value that broke it.

    Example:
        >>> InvalidInput("too many steps", field="/steps", rule="at most 100", value=200).as_problem()["code"]
        'invalid_input'
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str | None = None, rule: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.rule = rule
        self.value = value
        self.request_id: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        said = {name: vars(self)[name] for name in ("status", "code", "request_id") if name in vars(self)}
        return _rebuild, (type(self), self.message, self.field, self.rule, self.value), said

    def said(self, status: int, code: Any, request_id: Any) -> None:
        """Note what a service answered, in place of this class's own status and code.

        Args:
            status: HTTP status.
            code: the problem document's code, perhaps one that this version does not know; None when there is none.
            request_id: finds the request in the service's log.
        """
        vars(self)["status"] = status
        if isinstance(code, str):
            vars(self)["code"] = code
        self.request_id = request_id if isinstance(request_id, str) else None

    def as_problem(self) -> dict[str, Any]:
        """The error as the members of an RFC 9457 problem document."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            "detail": self.message,
        }
        if self.field is not None:
            problem["errors"] = [
                {"pointer": self.field, "rule": self.rule, "value": self.value, "message": self.message}
            ]
        return problem


def _rebuild(kind: type[WarploomError], message: str, field: str | None, rule: str | None, value: Any) -> WarploomError:
    return kind(message, field=field, rule=rule, value=value)


class InvalidInput(WarploomError):
    """The caller's value breaks a rule."""

    status, code = 422, "invalid_input"


class UnfitPair(InvalidInput):
    """Algorithm, task family and model do not go together; the message says what would fit."""

    code = "unfit_pair"


class WireError(InvalidInput):
    """Bytes that are truncated, corrupt, of a foreign format, or hold non-finite numbers."""

    code = "corrupt_payload"


class Unauthenticated(WarploomError):
    """No key, or one that is not known."""

    status, code = 401, "unauthenticated"


class Forbidden(WarploomError):
    """The key is known, but it may not do this."""

    status, code = 403, "forbidden"


class NotFound(WarploomError):
    """No such object (or not the caller's)."""

    status, code = 404, "not_found"


class Conflict(WarploomError):
    """The object's state does not allow this move."""

    status, code = 409, "conflict"


class TooLarge(WarploomError):
    """A body or a value over its limit."""

    status, code = 413, "too_large"


class BodyTimeout(WarploomError):
    """The request's body came too slowly."""

    status, code = 408, "request_timeout"


class RateLimited(WarploomError):
    """A limit of the caller's key is used up.

    Args:
        message, field, rule, value: as for every error.
        retry_after_s: seconds after which the same request would be let in.
    """

    status, code = 429, "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        rule: str | None = None,
        value: Any = None,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, field=field, rule=rule, value=value)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_limited, (self.message, self.field, self.rule, self.value, self.retry_after_s)


def _rebuild_limited(message: str, field: str | None, rule: str | None, value: Any, retry_after_s: float) -> Any:
    return RateLimited(message, field=field, rule=rule, value=value, retry_after_s=retry_after_s)


class Unavailable(WarploomError):
    """A part of the service is down or has no room; worth trying again."""

    status, code = 503, "unavailable"


class TimedOut(Unavailable):
    """No answer in time."""

    status, code = 504, "timed_out"


class DataMissing(WarploomError):
    """A data set's files are not where they should be; the message says where to put them."""

    status, code = 424, "data_missing"


class Fenced(WarploomError):
    """A newer generation owns the job: this worker was replaced and must stop."""

    status, code = 409, "fenced"


class TrainingFailed(WarploomError):
    """The job's own computation went wrong (a non-finite meta-gradient, say)."""

    code = "training_failed"


class ReplayCorrupt(WarploomError):
    """A unit of stored experience could not be read although it was done again and again."""

    code = "replay_corrupt"


class OutOfMemory(WarploomError):
    """The job needs more memory than there is."""

    code = "out_of_memory"


class Stalled(WarploomError):
    """The job got nowhere for as long as its spec allows."""

    code = "stalled"


class RunsLost(WarploomError):
    """The job's processes died again and again."""

    code = "runs_lost"


class RuntimeExceeded(WarploomError):
    """The job ran for as long as its spec allows."""

    code = "runtime_exceeded"


class SetupError(WarploomError):
    """This machine lacks a part that is needed; the message says how to get it."""

    code = "setup_error"
