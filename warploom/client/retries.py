"""When a request is made again, and after which pause: the manner of OpenAI's client."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from warploom.client.calls import Call

MAX_RETRIES = 2
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
# A service that asks for more is not waited for: the caller hears of it.
LONGEST_RETRY_AFTER_S = 60.0
NOT_DONE = frozenset({408, 429, 503})


def after_answer(call: Call[Any], answer: httpx.Response) -> bool:
    """Whether to make the call again after this answer.

    After 408, 429 and 503, which say that it was not carried out; after other 5xx when a repeat does no harm; after 409
    when it carries an idempotency key, because then its first attempt is still being answered.
    """
    status = answer.status_code
    if (retry_after(answer) or 0) > LONGEST_RETRY_AFTER_S:
        return False
    return status in NOT_DONE or (status == 409 and call.has_key) or (status >= 500 and call.safe)


def after_failure(call: Call[Any], error: httpx.TransportError) -> bool:
    """Whether to make the call again after this failure: when a repeat does no harm, or it never left."""
    return call.safe or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def pause(attempt: int, answer: httpx.Response | None = None) -> float:
    """Seconds to pause after the attempt of this number: as the answer says, else growing."""
    wanted = None if answer is None else retry_after(answer)
    return backoff(attempt) if wanted is None else wanted


def backoff(attempt: int) -> float:
    """Seconds to pause after the attempt of this number (0, 1, 2…), spread so that many callers do not come at once.

    Example:
        >>> all(0.75 * s <= backoff(n) <= s for n, s in enumerate([0.5, 1, 2, 4, 8, 8]))
        True
    """
    longest = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
    return longest * (1 - 0.25 * random.random())  # noqa: S311 - no secret


def retry_after(answer: httpx.Response) -> float | None:
    """Seconds that the service asks to wait, stated in seconds or as a date; None when it does not say."""
    text = answer.headers.get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
