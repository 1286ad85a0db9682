"""Algorithms, task families and models of installed distributions that the operator allows by name.

A distribution offers entries through entry points (`GROUPS`), each of which names a config class; the class names its
own implementation. Finding entry points reads metadata and imports nothing: the code of a distribution runs only after
`enable` was told its name.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from pydantic import ValidationError

from warploom import registry
from warploom.configs import AlgorithmConfig, ModelConfig, NamedConfig, TaskConfig
from warploom.errors import SetupError

GROUPS: dict[str, registry.Shelf] = {
    "warploom.algorithms": "algorithm",
    "warploom.tasks": "task",
    "warploom.models": "model",
}
BASES: dict[registry.Shelf, type[NamedConfig]] = {
    "algorithm": AlgorithmConfig,
    "task": TaskConfig,
    "model": ModelConfig,
}
NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,62}")
PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_enabling = threading.Lock()


class _Line(NamedTuple):
    plugin: str
    shelf: registry.Shelf
    name: str
    entry: registry.Entry


def enable(allowed: Iterable[str]) -> list[str]:
    """Put the entries of the distributions `allowed` into the tables: all of them, or none where one is at fault.

    What is there already stays, so that every part of a process may ask.

    Args:
        allowed: names of distributions, as pip knows them.

    Returns:
        The entries that this call added, as `shelf/name`.

    Raises:
        SetupError: a distribution is not installed, offers nothing, takes a name that is taken, or an entry is not
            what it should be; the message names the plugin.

    Example:
        >>> enable([])
        []
    """
    with _enabling:
        fresh = [line for plugin in dict.fromkeys(map(_normal, allowed)) for line in _lines(plugin)]
        taken: dict[tuple[registry.Shelf, str], str] = {}
        for line in fresh:
            _refuse_taken(line, taken.setdefault((line.shelf, line.name), line.plugin))
        checked = [line._replace(entry=_complete(line)) for line in fresh if not _there(line)]
        for line in checked:
            registry.TABLES[line.shelf][line.name] = line.entry
            registry.PLUGINS[line.shelf, line.name] = line.plugin
        return [f"{line.shelf}/{line.name}" for line in checked]


def enable_from_environment() -> list[str]:
    """As `enable`, with the names in `WARPLOOM_PLUGINS` (a,b,c); for a process without the service's settings."""
    return enable(name.strip() for name in os.environ.get("WARPLOOM_PLUGINS", "").split(",") if name.strip())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(plugin: str) -> list[_Line]:
    lines = [
        _Line(plugin, shelf, point.name, registry.Entry(point.value, ""))
        for group, shelf in GROUPS.items()
        for point in entry_points(group=group)
        if _home(point) == plugin
    ]
    if not lines:
        raise SetupError(
            f"plugin {plugin!r} is not installed here, or has no entry points in {', '.join(GROUPS)}: install it "
            "wherever the API, the supervisor and Ray's workers run, or take it out of WARPLOOM_PLUGINS",
            field="plugins",
            rule="an installed distribution with entry points",
            value=plugin,
        )
    return lines


def _home(point: EntryPoint) -> str | None:
    return None if point.dist is None else _normal(point.dist.name)


def _there(line: _Line) -> bool:
    return registry.PLUGINS.get((line.shelf, line.name)) == line.plugin


def _refuse_taken(line: _Line, first: str) -> None:
    owner = registry.PLUGINS.get((line.shelf, line.name), first)
    if owner != line.plugin:
        raise _fault(line, f"its name is taken by plugin {owner!r}", "a name of its own")
    if line.name in registry.TABLES[line.shelf] and not _there(line):
        raise _fault(line, "its name is that of a built-in one", "a name of its own")
    if not NAME.fullmatch(line.name):
        raise _fault(line, "its name may hold a-z, 0-9 and ._+- only, 63 at most", NAME.pattern)


def _complete(line: _Line) -> registry.Entry:
    had_torch = "torch" in sys.modules
    try:
        config = registry.load(line.entry.config)
    except Exception as error:
        raise _fault(line, f"{line.entry.config} cannot be loaded: {error!r}", "a config class") from error
    if "torch" in sys.modules and not had_torch:
        raise _fault(line, f"importing {line.entry.config} loads torch", "a config module without torch")
    if not (isinstance(config, type) and issubclass(config, BASES[line.shelf])):
        raise _fault(line, f"{line.entry.config} is no {BASES[line.shelf].__name__}", BASES[line.shelf].__name__)
    field = config.model_fields["name"]
    if field.default != line.name:
        raise _fault(line, f"{line.entry.config} has the name {field.default!r}", "the name of its entry point")
    if not PATH.fullmatch(config.implementation):
        raise _fault(line, f"{line.entry.config} names no implementation (module:name)", "implementation: module:name")
    if line.shelf == "model":
        _check_defaults(line, config)
    return registry.Entry(line.entry.config, config.implementation)


def _check_defaults(line: _Line, config: type[NamedConfig]) -> None:
    # A refusal lists the models that would fit, each with its defaults.
    try:
        config(name=line.name)
    except ValidationError as error:
        raise _fault(line, f"an option of {line.entry.config} has no default", "defaults for all options") from error


def _fault(line: _Line, reason: str, rule: str) -> SetupError:
    return SetupError(
        f"plugin {line.plugin!r}: {line.shelf} {line.name!r}: {reason}", field="plugins", rule=rule, value=line.name
    )
