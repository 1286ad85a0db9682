"""What can be asked about models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from warploom.client.calls import Call, content, delete, filters, get, part, patch, plain, put
from warploom.client.core import Core
from warploom.records import Model, Page

if TYPE_CHECKING:
    from warploom.local_model import LocalModel


def pages(
    limit: int = 100,
    after: str | None = None,
    order: str | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call[Page[Model]]:
    """The latest version of every model, a page at a time, by name; all else as for `jobs`."""
    times = {"created_after": created_after, "created_before": created_before}
    return get("/v1/models", Page[Model], **filters(metadata, limit=limit, after=after, order=order, **times))


async def listing(core: Core) -> list[Model]:
    """The latest version of every model."""
    found = await core.do(pages(1000))
    models = found.data
    while found.has_more and found.data:
        found = await core.do(pages(1000, after=models[-1].name))
        models = models + found.data
    return models


def note(name: str, metadata: Mapping[str, str | None]) -> Call[Model]:
    """Set pairs of a model's metadata, or remove them with None; the others stay."""
    return patch(_path(name), Model, {"metadata": dict(metadata)})


def one(name: str, version: int | None = None) -> Call[Model]:
    """One model; the latest version unless given, also as `name@version` or `name@alias`."""
    return get(_path(name, version), Model)


async def versions(core: Core, name: str) -> list[Model]:
    """All versions of a model, oldest first."""
    path = f"{_path(name)}/versions"
    found = await core.do(get(path, Page[Model], limit=1000))
    models = found.data
    while found.has_more and found.data:
        found = await core.do(get(path, Page[Model], limit=1000, after=models[-1].version))
        models = models + found.data
    return models


def aliases(name: str) -> Call[dict[str, Any]]:
    """The versions that a model's aliases stand for."""
    return plain(f"{_path(name)}/aliases")


def set_alias(name: str, alias: str, version: int) -> Call[Model]:
    """Make an alias, or move it: forwards to a new version, or back."""
    return put(f"{_path(name)}/aliases/{part(alias)}", Model, {"version": version})


def delete_alias(name: str, alias: str) -> Call[None]:
    """Forget an alias; `latest` then stands for the newest version again."""
    return delete(f"{_path(name)}/aliases/{part(alias)}")


def download(name: str, version: int | None = None) -> Call[bytes]:
    """The model's weights as safetensors bytes, checked against the service's checksum."""
    return content(f"{_path(name, version)}/weights", f"the file of model {name!r}")


def _path(name: str, version: int | None = None) -> str:
    return f"/v1/models/{part(name)}" + ("" if version is None else f"/versions/{int(version)}")


async def download_model(core: Core, name: str, version: int | None = None) -> LocalModel:
    """The model, to adapt it in this process without the service. Loads torch.

    Example:
        >>> net = client.download_model("sine").adapt(support_x, support_y)     # doctest: +SKIP
        >>> net(torch.as_tensor(query_x))                                       # doctest: +SKIP
    """
    from warploom.local_model import LocalModel

    return LocalModel(await core.do(download(name, version)))
