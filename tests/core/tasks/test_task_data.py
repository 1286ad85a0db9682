from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from warploom.errors import NotFound, Unavailable, WireError
from warploom.tasks import data
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.types import TaskRef

BODY = bytes(range(256)) * 1500


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        body = BODY if self.path == "/good" else b"short"
        self.send_response(404 if self.path == "/gone" else 200)
        self.send_header("Content-Length", str(len(BODY) if self.path in ("/good", "/cut") else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def offer(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    md5 = hashlib.md5(BODY).hexdigest()
    table = tuple(data.Archive(f"{i}.zip", url, md5) for i, url in enumerate(urls))
    monkeypatch.setitem(data.ARCHIVES, "sample", table)


def test_fetch_writes_the_archives_and_tells_the_progress(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, f"{server}/good", f"{server}/moved")
    seen: list[tuple[str, int, int | None]] = []
    paths = data.fetch("sample", root=tmp_path, progress=lambda *step: seen.append(step))
    assert paths == [tmp_path / "sample" / "0.zip", tmp_path / "sample" / "1.zip"]
    assert [path.read_bytes() for path in paths] == [BODY, BODY]
    assert sorted((tmp_path / "sample").iterdir()) == paths
    assert ("0.zip", len(BODY), len(BODY)) in seen
    assert [step[1] for step in seen if step[0] == "0.zip"] == sorted(s[1] for s in seen if s[0] == "0.zip")


def test_what_is_there_is_left_as_it_is(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(monkeypatch, f"{server}/gone")
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "0.zip").write_bytes(b"the user's own")
    monkeypatch.setenv("WARPLOOM_DATA", str(tmp_path))
    assert data.fetch("sample")[0].read_bytes() == b"the user's own"


@pytest.mark.parametrize(
    ("page", "error", "words"),
    [("/other", WireError, "not the published"), ("/gone", Unavailable, "404"), ("/cut", Unavailable, "/cut")],
)
def test_a_failed_fetch_leaves_nothing_behind(
    page: str, error: type[Exception], words: str, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, server + page)
    with pytest.raises(error, match=words):
        data.fetch("sample", root=tmp_path)
    assert list((tmp_path / "sample").iterdir()) == []


def test_no_server_and_no_such_data_set(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(monkeypatch, "http://127.0.0.1:1/x")
    with pytest.raises(Unavailable, match=r"could not download http://127\.0\.0\.1:1/x"):
        data.fetch("sample", root=tmp_path)
    with pytest.raises(NotFound, match=r"there are: .*omniglot, sample"):
        data.fetch("mnist", root=tmp_path)


def test_omniglot_is_fetched_from_its_official_address() -> None:
    urls = [archive.url for archive in data.ARCHIVES["omniglot"]]
    start = "https://github.com/brendenlake/omniglot/raw/master/python/"
    assert urls == [start + "images_background.zip", start + "images_evaluation.zip"]


def test_the_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WARPLOOM_DATA", raising=False)
    monkeypatch.setenv("WARPLOOM_CACHE", "")
    assert data.data_root() == tmp_path / ".cache/warploom/data"
    assert data.cache_root() == tmp_path / ".cache/warploom"
    monkeypatch.setenv("WARPLOOM_DATA", "~/elsewhere")
    assert data.data_root() == tmp_path / "elsewhere"


def test_every_epoch_visits_all_in_an_order_of_its_own() -> None:
    order = [data.pick_of_epoch(TaskRef("train", i, 8), 25) for i in range(75)]
    epochs = [order[:25], order[25:50], order[50:]]
    assert all(sorted(epoch) == list(range(25)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    others = (TaskRef("train", i, 9) for i in range(25)), (TaskRef("test", i, 8) for i in range(25))
    assert all([data.pick_of_epoch(ref, 25) for ref in refs] != epochs[0] for refs in others)


def test_configs_refuse_what_cannot_be() -> None:
    with pytest.raises(ValidationError, match=r"shots \+ queries must be at most 20.*got shots=16, queries=5"):
        OmniglotConfig(shots=16)
    with pytest.raises(ValidationError, match=r"scale_min must be at most scale_max; got scale_min=1.5"):
        GlyphsConfig(scale_min=1.5)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        GlyphsConfig(hands=1)
