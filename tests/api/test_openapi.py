"""The document that describes the API: complete, and never changed in a way that breaks those who use it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from api.answers import BY_SCHEMA
from api.examples import BODIES
from tests.api.conftest import Api
from tests.api.test_errors import problem
from warploom.estimate import estimate
from warploom.records import Estimate
from warploom.spec import JobSpec

SNAPSHOT = Path(__file__).parents[2] / "docs" / "openapi.json"
UPDATE = "WARPLOOM_UPDATE_OPENAPI"
METHODS = ("get", "post", "put", "patch", "delete")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def broken(old: Any, new: Any, where: str = "", *, asked: bool = False) -> Iterator[str]:
    """What of `old` is not so any more in `new`. `asked`: within what a caller sends, where new duties break too."""
    if isinstance(old, dict):
        if not isinstance(new, dict):
            yield f"{where}: {type(old).__name__} became {type(new).__name__}"
            return
        for name, value in old.items():
            inner = asked or name in ("requestBody", "parameters")
            if name in ("description", "summary", "title", "info", "example", "examples", "version", "default"):
                continue
            if name not in new:
                yield f"{where}/{name}: is gone"
            elif name == "required" and isinstance(value, list):
                more, fewer = set(new[name]) - set(value), set(value) - set(new[name])
                yield from (f"{where}/{name}: {one} must be sent now" for one in more if asked)
                yield from (f"{where}/{name}: {one} may be absent now" for one in fewer if not asked)
            else:
                yield from broken(value, new[name], f"{where}/{name}", asked=inner)
        if "required" in new and "required" not in old and asked:
            yield f"{where}/required: {new['required']} must be sent now"
    elif isinstance(old, list):
        yield from _broken_list(old, new, where, asked)
    elif old != new:
        yield f"{where}: {old!r} became {new!r}"


def _broken_list(old: list[Any], new: Any, where: str, asked: bool) -> Iterator[str]:
    if not isinstance(new, list):
        yield f"{where}: a list became {new!r}"
    elif old and isinstance(old[0], dict) and "name" in old[0]:
        known = {(one["name"], one["in"]): one for one in new}
        for one in old:
            if (key := (one["name"], one["in"])) in known:
                yield from broken(one, known.pop(key), f"{where}/{key[0]}", asked=True)
            else:
                yield f"{where}/{key[0]}: is gone"
        yield from (f"{where}/{name}: must be sent now" for (name, _), one in known.items() if one.get("required"))
    elif old and isinstance(old[0], dict):
        for i, one in enumerate(old):
            if all(list(broken(one, other, asked=asked)) for other in new):
                yield f"{where}/{i}: is gone or changed"
    else:
        yield from (f"{where}: {one!r} is gone" for one in old if one not in new)


def _body_schemas(document: dict[str, Any]) -> dict[str, bool]:
    """The named schemas that callers send."""
    text = {name: json.dumps(schema) for name, schema in document["components"]["schemas"].items()}
    sent = {
        name for _, operation in operations(document) for name in text
        if f'/{name}"' in json.dumps(operation.get("requestBody", {}))
    }  # fmt: skip
    while more := {name for name in text for known in sent if f'/{name}"' in text[known]} - sent:
        sent |= more
    return {name: name in sent for name in text}


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    schemas = _body_schemas(new)
    found = list(broken(old["paths"], new["paths"], "/paths"))
    for name, schema in old["components"]["schemas"].items():
        where = f"/components/schemas/{name}"
        if name in new["components"]["schemas"]:
            found += broken(schema, new["components"]["schemas"][name], where, asked=schemas[name])
        else:
            found.append(f"{where}: is gone")
    return found


def test_nothing_breaks_and_additions_are_written_down(app: FastAPI) -> None:
    document = json.loads(json.dumps(app.openapi()))
    if os.environ.get(UPDATE):
        SNAPSHOT.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    known = json.loads(SNAPSHOT.read_text())
    assert breaks(known, document) == []
    assert known == document, f"only additions: run this test with {UPDATE}=1 and commit docs/openapi.json"


def test_a_breaking_change_is_seen(app: FastAPI) -> None:
    old = json.loads(json.dumps(app.openapi()))

    def after(change: Any) -> list[str]:
        new = json.loads(json.dumps(old))
        change(new["paths"], new["components"]["schemas"])
        return breaks(old, new)

    assert after(lambda paths, _: paths.pop("/v1/jobs/{job_id}/logs"))
    assert after(lambda paths, _: paths["/v1/jobs"].pop("post"))
    assert after(lambda _, schemas: schemas["Job"]["properties"].pop("phase"))
    assert after(lambda _, schemas: schemas["JobSpec"]["required"].append("name"))
    assert after(lambda _, schemas: schemas["ReplaySpec"].update(required=["dtype"]))
    assert after(lambda _, schemas: schemas["TrainingSpec"]["properties"]["mode"]["enum"].remove("async"))
    assert after(lambda _, schemas: schemas["Job"]["properties"]["state"].update(type="integer"))
    assert after(lambda paths, _: paths["/v1/jobs"]["get"]["parameters"].pop(0))
    more = {"name": "x", "in": "query", "required": True, "schema": {}}
    assert after(lambda paths, _: paths["/v1/jobs"]["get"]["parameters"].append(more))
    assert after(lambda paths, _: paths["/v1/jobs"]["get"]["parameters"].append({**more, "required": False})) == []
    assert after(lambda _, schemas: schemas["Job"]["properties"].update(more={"type": "string"})) == []
    assert after(lambda paths, _: paths.update({"/v1/more": {"get": {}}})) == []


def test_every_operation_says_what_it_is(app: FastAPI) -> None:
    document = app.openapi()
    assert document["openapi"].startswith("3.1")
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for name, operation in operations(document):
        assert operation.get("description"), name
        assert operation.get("summary"), name
        if " /v1" in name:
            assert "/Problem" in json.dumps(operation["responses"]), name


def said(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All JSON that callers send or are sent, with its schema and its example."""
    for name, operation in operations(document):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            yield f"{name}, body", body
        for status, answer in operation["responses"].items():
            if "application/json" in answer.get("content", {}):
                yield f"{name}, {status}", answer["content"]["application/json"]
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                yield f"{name}, {parameter['name']}", parameter


def test_every_call_has_examples_that_are_what_the_schema_says(app: FastAPI) -> None:
    document = app.openapi()
    found = dict(said(document))
    assert len(found) > 100
    for where, content in found.items():
        assert "example" in content, f"{where}: add one to api/examples.py or api/answers.py"
        whole = {**content["schema"], "components": document["components"]}
        Draft202012Validator(whole).validate(content["example"])
        if (name := content["schema"].get("$ref", "").rpartition("/")[2]) and isinstance(content["example"], dict):
            unknown = set(content["example"]) - set(document["components"]["schemas"][name]["properties"])
            assert not unknown, f"{where}: {unknown}"
    assert estimate(JobSpec.parse(BODIES["jobs_submit"])) == Estimate.model_validate(BY_SCHEMA["DryRun"]["estimate"])


@pytest.mark.parametrize(
    "path", ["/v1/jobs?stat=queued", "/v1/jobs?metadata=x", "/v1/catalog?x=1", "/v1/models?state=a"]
)
def test_an_unknown_query_parameter_is_refused(client: Api, path: str) -> None:
    document = problem(client.get(path), 422, "invalid_input")
    assert document["errors"][0]["pointer"] == "/" + path.partition("?")[2].partition("=")[0]
