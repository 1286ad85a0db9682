"""Models: list them, fetch one, move an alias."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warploom.cli.output import AsJson, ago, client_of, console, emit_json, facts, held_out, size, table
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import Model


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (models, alias):
        app.command(rich_help_panel="Models")(command)


def models(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one model in full.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The version; default the latest.")] = None,
    versions: Annotated[bool, typer.Option("--versions", help="List all versions of it.")] = False,
    download: Annotated[Path | None, typer.Option(help="Write the weights (safetensors) to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """List trained models, or show one and fetch its weights.

    Example: [bold]warploom models my-glyphs --download my-glyphs.safetensors[/]
    """
    if name is None and (download is not None or versions):
        raise typer.BadParameter("say which model: warploom models NAME --download FILE")
    with client_of(ctx) as client:
        if name is None or versions:
            found = client.models() if name is None else client.versions(name)
            emit_json(found) if as_json else _list(found)
            return
        model = client.model(name, version)
        if download is not None:
            write(download, client.download(name, model.version))
    emit_json(model) if as_json else _show(model)


def alias(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    alias: Annotated[str | None, typer.Argument(metavar="[ALIAS]", help="For example stable.")] = None,
    version: Annotated[int | None, typer.Argument(min=1, metavar="[VERSION]", help="What it is to stand for.")] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget the alias.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a model's aliases, move one to a version, or forget it. MODEL@ALIAS then names that version.

    Example: [bold]warploom alias sine stable 3[/]
    """
    if (alias is None) != (version is None and not forget):
        raise typer.BadParameter("write it as: warploom alias MODEL ALIAS VERSION, or MODEL ALIAS --forget")
    with client_of(ctx) as client:
        if alias is not None and version is not None:
            client.set_alias(name, alias, version)
        elif alias is not None:
            client.delete_alias(name, alias)
        found = client.aliases(name)
    emit_json(found) if as_json else console.print(table(("ALIAS", "VERSION"), sorted(found.items())))


def write(path: Path, content: bytes) -> None:
    """Write a file. Raises InvalidInput."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from None


def _list(found: list[Model]) -> None:
    rows = [
        (
            model.name,
            model.version,
            model.kind,
            "x".join(map(str, model.input_shape)),
            model.outputs,
            f"{model.parameters:,}",
            size(model.bytes),
            held_out(model.metrics),
            ago(model.created_at),
        )
        for model in found
    ]
    names = ("NAME", "VERSION", "KIND", "INPUT", "OUTPUTS", "PARAMETERS", "SIZE", "HELD OUT", "CREATED")
    console.print(table(names, rows))


def _show(model: Model) -> None:
    document = model.model_dump(exclude={"spec", "metrics"})
    console.print(facts(document | dict(sorted(model.metrics.items()))))
