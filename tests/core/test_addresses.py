"""Addresses that users name: what is refused at the door and again at use."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator

import httpx
import pytest

from service.settings import Settings
from warploom.addresses import AsyncGuardedTransport, GuardedTransport, check_url, is_public, parse_url
from warploom.errors import InvalidInput

PUBLIC = ("1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")
PRIVATE = (
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1",
    "fe80::1%1", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "localhost", "",
)  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_open_internet(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize("text", PRIVATE)
def test_all_others_are_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "//example.com/", "example.com", "", "https://",
        "https://user@example.com/", "https://user:secret@example.com/", "https://exa mple.com/", "https://a\\@b/",
        "https://example.com\r\nHost: inner/", "https://example.com:99999/", "https://[::1/", "gopher://a/",
        "https://example.com/" + "a" * 3000,
    ],
)  # fmt: skip
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_url(url, field="/webhook/url")
    assert refused.value.field == "/webhook/url" and refused.value.rule


def test_where_a_url_leads() -> None:
    assert parse_url("https://Example.COM./hook?x=1") == ("example.com", 443)
    assert parse_url("http://[2606:4700::1]:8080/", schemes=("http",)) == ("2606:4700::1", 8080)
    assert parse_url("https://bücher.example/") == ("xn--bcher-kva.example", 443)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0"]
)
def test_a_url_into_our_own_network_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput, match="/url"):
        check_url(f"https://{host}/")


def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_url("https://both.example/", resolve=lambda *_: ["1.1.1.1", "10.0.0.1"])
    assert "10.0.0.1" not in str(refused.value)
    assert check_url("https://good.example/", resolve=lambda *_: ["1.1.1.1"]).host == "good.example"


def test_a_name_without_address_is_refused() -> None:
    def none(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    for resolve in (none, lambda *_: []):
        with pytest.raises(InvalidInput, match="has no address"):
            check_url("https://nowhere.example/", resolve=resolve)


def test_the_operator_may_allow_a_host() -> None:
    assert check_url("http://localhost:9/", schemes=("http",), allowed={"localhost"}).port == 9
    chosen = Settings(allowed_hosts="a.example, B.example")  # type: ignore[arg-type]
    assert chosen.allowed_hosts == {"a.example", "b.example"}


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:1/secret")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_connection_goes_to_the_address_that_was_judged(port: int) -> None:
    # The name exists nowhere: only the address that the check saw can have been used.
    transport = GuardedTransport(allowed={"hook.invalid"}, schemes=("http",), resolve=lambda *_: ["127.0.0.1"])
    with httpx.Client(transport=transport) as client:
        answer = client.post(f"http://hook.invalid:{port}/", content=b"hello")
    assert (answer.content, answer.headers["x-host"]) == (b"hello", f"hook.invalid:{port}")


def test_a_name_that_changes_its_mind_after_the_check_is_refused(port: int) -> None:
    answers = iter([["1.1.1.1"], ["127.0.0.1"]])
    url = f"http://rebind.invalid:{port}/"
    check_url(url, schemes=("http",), resolve=lambda *_: next(answers))
    with (
        httpx.Client(transport=GuardedTransport(schemes=("http",), resolve=lambda *_: next(answers))) as client,
        pytest.raises(InvalidInput),
    ):
        client.post(url, content=b"hello")


def test_a_redirect_inwards_is_refused(port: int) -> None:
    transport = GuardedTransport(allowed={"hook.invalid"}, schemes=("http",), resolve=lambda *_: ["127.0.0.1"])
    with httpx.Client(transport=transport, follow_redirects=True) as client, pytest.raises(InvalidInput):
        client.get(f"http://hook.invalid:{port}/")


def test_the_asynchronous_transport_does_the_same(port: int) -> None:
    async def calls() -> bytes:
        transport = AsyncGuardedTransport(allowed={"hook.invalid"}, schemes=("http",), resolve=lambda *_: ["127.0.0.1"])
        async with httpx.AsyncClient(transport=transport) as client:
            answer = await client.post(f"http://hook.invalid:{port}/", content=b"hello")
            with pytest.raises(InvalidInput):
                await client.post(f"http://127.0.0.1:{port}/", content=b"hello")
            return answer.content

    assert asyncio.run(calls()) == b"hello"


def test_a_name_that_is_gone_at_use_can_be_tried_again() -> None:
    def none(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with httpx.Client(transport=GuardedTransport(resolve=none)) as client, pytest.raises(httpx.ConnectError):
        client.get("https://nowhere.example/")
