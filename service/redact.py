"""Text without secrets, before it is stored or shown."""

from __future__ import annotations

import re

HIDDEN = "***"
_RULES = (
    # user:password@ in an address
    (re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@"), rf"\1:{HIDDEN}@"),
    # our own keys and secrets of webhooks
    (re.compile(r"\b(wlk_|whsec_)[A-Za-z0-9+/=_-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # name=value, name: value, 'name': 'value'
    (
        re.compile(
            r"(?i)([\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*[\"']?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;}\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
)


def redacted(text: str) -> str:
    """The text with passwords in addresses, keys, tokens and what is named like a secret replaced by `***`.

    Example:
        >>> redacted("redis://me:hunter2@host/0 refused; api_key='wlk_abc'")
        'redis://me:***@host/0 refused; api_key=***'
    """
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text
