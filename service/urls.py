"""The URLs of Redis servers."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from warploom.errors import InvalidInput

SCHEMES = ("redis", "rediss", "unix")
MOST_SHARDS = 16


def without_password(url: str) -> str:
    """The URL with its password replaced by `***`.

    Example:
        >>> without_password("redis://api:secret@replay:6379/0")
        'redis://api:***@replay:6379/0'
    """
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}:***@{host}"))


def split_urls(urls: str) -> tuple[str, ...]:
    """The servers of a comma-separated list, as they stand there; a comma within a password is written `%2C`.

    Example:
        >>> split_urls("redis://a:6379/0, redis://b:6379/0")
        ('redis://a:6379/0', 'redis://b:6379/0')
    """
    return tuple(url.strip() for url in urls.split(","))


def checked_urls(name: str, urls: str, *, most: int) -> str:
    """The list, in its plain form.

    Args:
        name: of the setting, for errors.
        urls: comma-separated.
        most: servers that it may name.

    Raises:
        InvalidInput: too many, one that is no Redis URL, or a server twice.
    """
    found = split_urls(urls)
    seen: set[tuple[str, str]] = set()
    for url in found:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not (parts.hostname or parts.path):
            raise _refused(name, "redis://, rediss:// or unix:// URLs, joined by commas", without_password(url))
        place = (parts.netloc.rpartition("@")[2], parts.path.rstrip("/") or "/0")
        if place in seen:
            raise _refused(name, "each server once", without_password(url))
        seen.add(place)
    if len(found) > most:
        raise _refused(name, f"at most {most}", f"{len(found)} servers")
    return ",".join(found)


def _refused(name: str, rule: str, value: str) -> InvalidInput:
    return InvalidInput(f"{name}: {rule}; got {value!r}", field=name, rule=rule, value=value)
