"""Spec files: JSON or TOML, from a file or standard input, with overrides from the command line."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from warploom.errors import InvalidInput

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A .json or .toml file; '-' reads standard input.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one field, e.g. training.rounds=20. May be repeated."),
]


def read(path: str, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """The document at `path` with `overrides` applied.

    Raises:
        InvalidInput: no such file, not JSON or TOML, or an override that cannot be applied.
    """
    document = _parse(path, _text(path))
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: a spec is an object, not a {type(document).__name__}", field="/", rule="object")
    for override in overrides or ():
        _apply(document, override)
    return document


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInput(f"cannot read the spec {path}: {reason}") from None


def _parse(path: str, text: str) -> Any:
    if path.endswith((".yaml", ".yml")):
        raise InvalidInput(f"{path}: specs are JSON or TOML, not YAML", rule=".json or .toml")
    try:
        return tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}") from None
    except ValueError as error:
        if path == "-":
            return _toml_from_stdin(text)
        raise InvalidInput(f"{path} is not valid JSON: {error}") from None


def _toml_from_stdin(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise InvalidInput("standard input is neither JSON nor TOML") from None


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    *parents, leaf = path.split(".")
    if not equals or not leaf or "" in parents:
        raise InvalidInput(f"--set {override}: write it as path.to.field=value", rule="PATH=VALUE", value=override)
    node = document
    for part in parents:
        inner = node.get(part, {})
        # "algorithm": "warpgrad" is short for {"name": "warpgrad"}.
        inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, dict):
            raise InvalidInput(f"--set {override}: {part} is a plain value and has no fields", value=override)
        node[part] = inner
        node = inner
    node[leaf] = _value(text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
