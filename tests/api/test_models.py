"""Versions and aliases of models over the API."""

from __future__ import annotations

import hashlib

from service.connection import Connections
from tests.api.conftest import Api, FakeAdapter, register

TASK = {"support": {"x": [[0.5]], "y": [[0.5]]}}
WAVES = {"kind": "regression", "input_shape": [1], "outputs": 1}


def test_an_alias_decides_which_version_adapts(client: Api, connections: Connections, adapter: FakeAdapter) -> None:
    for once in ("a", "b"):
        register(connections, "waves", **WAVES, once=once)
    alias = "/v1/models/waves/aliases/stable"
    moved = client.request("PUT", alias, json={"version": 1})
    assert (moved.status_code, moved.json()["version"], moved.json()["aliases"]) == (200, 1, ["stable"])
    assert client.get("/v1/models/waves/aliases").json() == {"latest": 2, "stable": 1}
    for name, version in (("waves", 2), ("waves@stable", 1), ("waves@latest", 2), ("waves@1", 1)):
        assert client.post(f"/v1/models/{name}/adapt", json=TASK).json()["version"] == version
        assert client.get(f"/v1/models/{name}").json()["version"] == version
    client.request("PUT", "/v1/models/waves/aliases/latest", json={"version": 1})
    assert client.post("/v1/models/waves/adapt", json=TASK).json()["version"] == 1, "rolled back"
    for _ in range(2):
        assert client.delete(alias).status_code == 204
    assert client.post("/v1/models/waves@stable/adapt", json=TASK).status_code == 404
    for bad in ({"version": 0}, {"version": "x"}, {}, {"version": 1, "more": 1}):
        assert client.request("PUT", alias, json=bad).status_code == 422
    assert client.request("PUT", alias, json={"version": 9}).status_code == 404
    assert client.request("PUT", "/v1/models/waves/aliases/1", json={"version": 1}).status_code == 422


def test_every_version_can_be_looked_at_and_downloaded(client: Api, connections: Connections) -> None:
    for once in ("a", "b", "c"):
        register(connections, "waves", **WAVES, once=once, parameters=ord(once))
    listed = client.get("/v1/models/waves/versions", params={"limit": 2}).json()
    assert ([model["version"] for model in listed["data"]], listed["has_more"]) == ([1, 2], True)
    rest = client.get("/v1/models/waves/versions", params={"after": 2}).json()
    assert [model["parameters"] for model in rest["data"]] == [ord("c")]
    assert client.get("/v1/models/waves/versions/2").json() == listed["data"][1]
    answer = client.get("/v1/models/waves/versions/2/weights")
    assert hashlib.sha256(answer.content).hexdigest() == answer.headers["x-content-sha256"]
    assert answer.headers["content-disposition"] == 'attachment; filename="waves-2.safetensors"'
    for path in ("waves/versions/9", "waves/versions/9/weights", "none/versions", "none/aliases"):
        assert client.get(f"/v1/models/{path}").status_code == 404
