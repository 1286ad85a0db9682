"""Models: list them, adapt one to a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warploom.cli.output import AsJson, ago, client_of, console, emit_json, held_out, percent, shown, size, table
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import Adaptation, Model

LARGEST_FILE = 2**30
SHOWN_ROWS = 20


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    for command in (models, adapt):
        app.command(rich_help_panel="Models")(command)


def models(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one model in full.")] = None,
    download: Annotated[Path | None, typer.Option(help="Write the weights (safetensors) to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """List trained models, or show one and fetch its weights.

    Example: [bold]warploom models my-glyphs --download my-glyphs.safetensors[/]
    """
    if name is None and download is not None:
        raise typer.BadParameter("say which model: warploom models NAME --download FILE")
    with client_of(ctx) as client:
        if name is None:
            found = client.models()
            emit_json(found) if as_json else _list(found)
            return
        model = client.model(name)
        if download is not None:
            _write(download, client.download(name, model.version))
    emit_json(model) if as_json else _show(model)


def adapt(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    support: Annotated[Path, typer.Option(help="An .npz file with arrays x and y (or support_x and support_y).")],
    query: Annotated[Path | None, typer.Option(help="An .npz file with array x (or query_x) to predict.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of adaptation; default the model's own.")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size; default the model's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write labels and outputs to this .npz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Adapt a model to a task of your own and predict.

    Example: [bold]warploom adapt my-glyphs --support s.npz --query q.npz --out predictions.npz[/]
    """
    arrays = _arrays(support)
    support_x, support_y = (_pick(arrays, support, name, f"support_{name}") for name in ("x", "y"))
    query_x = arrays.get("query_x")
    if query is not None:
        query_x = _pick(_arrays(query), query, "x", "query_x")
    if out is not None and query_x is None:
        raise typer.BadParameter("--out needs something to predict: give --query, or query_x in the support file")
    with client_of(ctx) as client:
        adapted = client.adapt(model, support_x, support_y, query_x, steps=steps, lr=lr)
    if out is not None:
        _save(out, adapted)
    emit_json(adapted) if as_json else _report(adapted)


def _arrays(path: Path) -> dict[str, Any]:
    from warploom.wire import read_npz

    try:
        return read_npz(path.read_bytes(), max_bytes=LARGEST_FILE)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None


def _pick(arrays: dict[str, Any], path: Path, *names: str) -> Any:
    for name in names:
        if name in arrays:
            return arrays[name]
    found = ", ".join(sorted(arrays)) or "nothing"
    raise InvalidInput(f"{path} holds {found}, but not {' or '.join(names)}", rule=f"an array {names[0]}")


def _save(path: Path, adapted: Adaptation) -> None:
    import numpy as np

    if adapted.prediction is None:
        return
    arrays: dict[str, Any] = {"outputs": np.asarray(adapted.prediction.outputs, dtype=np.float32)}
    if adapted.prediction.labels is not None:
        arrays["labels"] = np.asarray(adapted.prediction.labels, dtype=np.int64)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _write(path: Path, content: bytes) -> None:
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
    console.print(table(("", ""), [*document.items(), *sorted(model.metrics.items())]))


def _report(adapted: Adaptation) -> None:
    losses = f"{shown(adapted.losses[0])} → {shown(adapted.losses[-1])}" if adapted.losses else "-"
    console.print(
        f"adapted [bold]{adapted.model}[/] version {adapted.version} in {adapted.steps} steps",
        highlight=False,
    )
    console.print(f"support loss {losses}, support accuracy {percent(adapted.support_accuracy)}", highlight=False)
    console.print(f"kept as {adapted.id}", highlight=False)
    if adapted.prediction is None:
        return
    labels = adapted.prediction.labels
    outputs = adapted.prediction.outputs
    if labels is not None:
        rows = [(i, label, percent(max(row))) for i, (label, row) in enumerate(zip(labels, outputs, strict=True))]
        console.print(table(("QUERY", "LABEL", "PROBABILITY"), rows[:SHOWN_ROWS]))
    else:
        values = [(i, "  ".join(map(shown, row))) for i, row in enumerate(outputs)]
        console.print(table(("QUERY", "VALUE"), values[:SHOWN_ROWS]))
    if len(outputs) > SHOWN_ROWS:
        console.print(f"[dim]and {len(outputs) - SHOWN_ROWS} more; --json or --out gives all[/]")
