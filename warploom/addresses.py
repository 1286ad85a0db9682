"""Addresses that a user names (webhooks, data sets): refused when they lead into our own network.

Checking once is not enough, because a name may resolve to a public address while it is checked and to a private one
while it is used. So the check stands in the transport: a name is resolved, every address of it is judged, and the
connection goes to the address that was judged; certificates are still checked against the name. `check_url` says the
same earlier, so that a refusal reaches the user at the door.

Example:
    >>> check_url("http://169.254.169.254/latest", schemes=("http",))
    Traceback (most recent call last):
    ...
    warploom.errors.InvalidInput: /url: 169.254.169.254 is not a public address
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import httpx

from warploom.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
LONGEST_URL = 2048
PORTS = {"https": 443, "http": 80}
# A gateway translates these to the IPv4 address in their last 32 bits.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNCLEAN = re.compile(r"[\x00-\x20\x7f\\]")


class Target(NamedTuple):
    """Where a URL leads: its host name and the port that it means."""

    host: str
    port: int


def is_public(text: str) -> bool:
    """Whether this IP address is one of the open internet.

    False for private, loopback, link-local, multicast, reserved and unspecified addresses, and for IPv6 addresses that
    carry such an IPv4 address (mapped, 6to4, Teredo, NAT64) or no scope that we could check.

    Example:
        >>> [is_public(text) for text in ("1.1.1.1", "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "fe80::1%eth0")]
        [True, False, False, False, False]
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return _plain(address)
    if address.scope_id is not None or address.is_site_local:
        return False
    if address.ipv4_mapped is not None:
        return _plain(address.ipv4_mapped)
    if address in NAT64:
        return _plain(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    inner = (address.sixtofour, *(address.teredo or ()))
    return _plain(address) and all(_plain(part) for part in inner if part is not None)


def _plain(address: Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, in the system's order.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def parse_url(url: str, *, schemes: Collection[str] = ("https",), field: str = "/url") -> Target:
    """Where `url` leads, without asking the network.

    Raises:
        InvalidInput: no URL, another scheme, a user name or password in it, or odd characters.
    """
    if len(url) > LONGEST_URL:
        rule = f"at most {LONGEST_URL} characters"
        raise InvalidInput(f"{field}: has {len(url)} characters; {rule}", field=field, rule=rule, value=url[:100])
    rule = f"an absolute URL with {' or '.join(schemes)}, a host and no user name"
    refusal = InvalidInput(f"{field}: must be {rule}", field=field, rule=rule, value=url)
    if _UNCLEAN.search(url):
        raise refusal
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise refusal from None
    if parsed.scheme not in schemes or not parsed.host or parsed.userinfo or not 0 < (parsed.port or 1) < 65536:
        raise refusal
    # The form that goes over the network: lower case, other scripts as Punycode.
    return Target(parsed.raw_host.decode("ascii").rstrip(".").lower(), parsed.port or PORTS[parsed.scheme])


def check_url(
    url: str,
    *,
    allowed: Collection[str] = (),
    schemes: Collection[str] = ("https",),
    field: str = "/url",
    resolve: Resolve = resolve,
) -> Target:
    """Refuse a URL that does not lead to the open internet; asks the resolver.

    Args:
        url: what the user gave.
        allowed: host names (or addresses) that the operator permits wherever they lead.
        schemes: those that are permitted.
        field: named in refusals.
        resolve: gives a name's addresses.

    Raises:
        InvalidInput: see `parse_url`; or the name has no address, or any of its addresses is not public.
    """
    target = parse_url(url, schemes=schemes, field=field)
    if target.host in allowed:
        return target
    try:
        found = resolve(*target)
    except (OSError, UnicodeError):
        rule = "a host name that resolves"
        raise InvalidInput(f"{field}: {target.host} has no address", field=field, rule=rule, value=url) from None
    judge(target.host, found, allowed=allowed, field=field)
    return target


def judge(host: str, found: Sequence[str], *, allowed: Collection[str] = (), field: str = "/url") -> str:
    """The address to connect to: the first, if all are public or the host is allowed.

    Raises:
        InvalidInput: one is not. It is not named: names of an inner network are nobody's business.
    """
    if not found:
        raise InvalidInput(f"{field}: {host} has no address", field=field, rule="a host name that resolves", value=host)
    if host not in allowed and not all(map(is_public, found)):
        rule = "a host all of whose addresses are public"
        what = "is not a public address" if _is_address(host) else "does not lead to public addresses only"
        raise InvalidInput(f"{field}: {host} {what}", field=field, rule=rule, value=host)
    return found[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class GuardedTransport(httpx.BaseTransport):
    """An httpx transport that connects to checked addresses only; redirects pass through the check too.

    Args:
        allowed: host names that the operator permits wherever they lead.
        schemes: those that are permitted.
        resolve: gives a name's addresses.
        inner: what carries the request; default: httpx's own, without a proxy.

    Raises (when used):
        InvalidInput: the address is refused.
        httpx.ConnectError: the name has no address.

    Example:
        >>> with httpx.Client(transport=GuardedTransport(), timeout=10) as client:
        ...     client.get("https://127.0.0.1/")
        Traceback (most recent call last):
        ...
        warploom.errors.InvalidInput: /url: 127.0.0.1 is not a public address
    """

    def __init__(
        self,
        *,
        allowed: Collection[str] = (),
        schemes: Collection[str] = ("https",),
        resolve: Resolve = resolve,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        self._allowed, self._schemes, self._resolve = frozenset(allowed), tuple(schemes), resolve
        self._inner = inner or httpx.HTTPTransport(trust_env=False, limits=_NO_REUSE)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request to the address that was judged."""
        target = parse_url(str(request.url), schemes=self._schemes)
        try:
            found = self._resolve(*target)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{target.host} has no address", request=request) from error
        return self._inner.handle_request(_pinned(request, judge(target.host, found, allowed=self._allowed)))

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class AsyncGuardedTransport(httpx.AsyncBaseTransport):
    """`GuardedTransport` for `httpx.AsyncClient`; names are resolved on a thread."""

    def __init__(
        self,
        *,
        allowed: Collection[str] = (),
        schemes: Collection[str] = ("https",),
        resolve: Resolve = resolve,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allowed, self._schemes, self._resolve = frozenset(allowed), tuple(schemes), resolve
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False, limits=_NO_REUSE)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request to the address that was judged."""
        target = parse_url(str(request.url), schemes=self._schemes)
        try:
            found = await asyncio.to_thread(self._resolve, *target)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{target.host} has no address", request=request) from error
        pinned = _pinned(request, judge(target.host, found, allowed=self._allowed))
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


# A kept connection was checked against one name's certificate; another name at the same address must not get it.
_NO_REUSE = httpx.Limits(max_keepalive_connections=0)


def _pinned(request: httpx.Request, address: str) -> httpx.Request:
    # The Host header was set when the request was built and stays; so does the name in the TLS handshake.
    extensions = {**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")}
    url = request.url.copy_with(host=address)
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
