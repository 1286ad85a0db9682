"""Models: list them, adapt one to a task."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from warploom.cli.output import AsJson, ago, client_of, console, emit_json, facts, held_out, percent, shown, size, table
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import Adaptation, Model, Prediction

LARGEST_FILE = 2**30
SHOWN_ROWS = 20


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (models, alias, adapt):
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


def adapt(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    support: Annotated[Path, typer.Option(help="An .npz file with arrays x and y (or support_x and support_y).")],
    query: Annotated[Path | None, typer.Option(help="An .npz file with array x (or query_x) to predict.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of adaptation; default the model's own.")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size; default the model's own.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the minibatches.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The model's version; default the latest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write labels and outputs to this .npz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Adapt a model to a task of your own and predict.

    Example: [bold]warploom adapt my-glyphs --support s.npz --query q.npz --out predictions.npz[/]
    """
    arrays = read_arrays(support)
    support_x, support_y = (pick(arrays, support, name, f"support_{name}") for name in ("x", "y"))
    query_x = arrays.get("query_x")
    if query is not None:
        query_x = pick(read_arrays(query), query, "x", "query_x")
    if out is not None and query_x is None:
        raise typer.BadParameter("--out needs something to predict: give --query, or query_x in the support file")
    with client_of(ctx) as client:
        adapted = client.adapt(model, support_x, support_y, query_x, steps, lr, seed, version)
    if out is not None and adapted.prediction is not None:
        save(out, adapted.prediction)
    emit_json(adapted) if as_json else _report(adapted)


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an npz file. Raises InvalidInput."""
    from warploom.wire import read_npz

    try:
        return read_npz(path.read_bytes(), max_bytes=LARGEST_FILE)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None


def pick(arrays: dict[str, Any], path: Path, *names: str) -> Any:
    """The array of the first of these names that is there. Raises InvalidInput."""
    for name in names:
        if name in arrays:
            return arrays[name]
    found = ", ".join(sorted(arrays)) or "nothing"
    raise InvalidInput(f"{path} holds {found}, but not {' or '.join(names)}", rule=f"an array {names[0]}")


def save(path: Path, prediction: Prediction) -> None:
    """Write a prediction to an npz file. Raises InvalidInput."""
    import numpy as np

    arrays: dict[str, Any] = {"outputs": np.asarray(prediction.outputs, dtype=np.float32)}
    if prediction.labels is not None:
        arrays["labels"] = np.asarray(prediction.labels, dtype=np.int64)
    file = io.BytesIO()
    np.savez(file, **arrays)
    write(path, file.getvalue())


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


def _report(adapted: Adaptation) -> None:
    losses = f"{shown(adapted.losses[0])} → {shown(adapted.losses[-1])}" if adapted.losses else "-"
    console.print(
        f"adapted [bold]{adapted.model}[/] version {adapted.version} in {adapted.steps} steps",
        highlight=False,
    )
    accuracy = adapted.support_accuracy
    told = "" if accuracy is None else f", support accuracy {percent(accuracy)}"
    console.print(f"support loss {losses}{told}", highlight=False)
    for line in adapted.warnings:
        console.print(f"[yellow]warning:[/] {escape(line)}", highlight=False)
    console.print(
        f"kept as [bold]{adapted.id}[/]; predict more with: warploom predict {adapted.id} --query FILE", highlight=False
    )
    if adapted.prediction is not None:
        predictions(adapted.prediction)


def predictions(found: Prediction) -> None:
    """Show a prediction as a table, its first rows at least."""
    labels, outputs = found.labels, found.outputs
    if labels is not None:
        rows = [(i, label, percent(max(row))) for i, (label, row) in enumerate(zip(labels, outputs, strict=True))]
        console.print(table(("QUERY", "LABEL", "PROBABILITY"), rows[:SHOWN_ROWS]))
    else:
        values = [(i, "  ".join(map(shown, row))) for i, row in enumerate(outputs)]
        console.print(table(("QUERY", "VALUE"), values[:SHOWN_ROWS]))
    if len(outputs) > SHOWN_ROWS:
        console.print(f"[dim]and {len(outputs) - SHOWN_ROWS} more; --json or --out gives all[/]")
