"""Adapt a model to a task of one's own: arrays in npz files, or a folder of pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from warploom.cli.models import write
from warploom.cli.output import AsJson, client_of, console, emit_json, percent, shown, table
from warploom.cli.pictures import classes_in, files_of
from warploom.errors import InvalidInput

if TYPE_CHECKING:
    from warploom.records import Adaptation, Prediction

LARGEST_FILE = 2**30
SHOWN_ROWS = 20


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command(rich_help_panel="Models")(adapt)


def adapt(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    support: Annotated[
        list[Path],
        typer.Option(
            help="An .npz file with arrays x and y (or support_x and support_y), once for each task; or a folder that "
            "holds a folder of PNG or JPEG files for each class."
        ),
    ],
    query: Annotated[
        Path | None,
        typer.Option(help="What to predict: an .npz file with array x (or query_x); a picture, or a folder of them."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of adaptation; default the model's own.")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size; default the model's own.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the minibatches.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The model's version; default the latest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write labels and outputs to this .npz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Adapt a model to a task of your own and predict; or to several tasks in one call, with --support for each.

    Classes of pictures are numbered in the order of their folders' names.

    Example: [bold]warploom adapt my-glyphs --support s.npz --query q.npz --out predictions.npz[/]
    """
    options = (steps, lr, seed, version)
    if len(support) > 1:
        if query is not None or out is not None:
            raise typer.BadParameter("several tasks have their queries in their own files (query_x), and no --out")
        _several(ctx, model, support, options, as_json)
    elif support[0].is_dir():
        _pictures(ctx, model, support[0], query, options, out, as_json)
    else:
        x, y, query_x = _task(support[0], query)
        _need_queries(out, query_x is not None)
        with client_of(ctx) as client:
            adapted = client.adapt(model, x, y, query_x, *options)
        _tell(adapted, out, as_json)


def _several(ctx: typer.Context, model: str, support: Sequence[Path], options: Any, as_json: bool) -> None:
    tasks = [[array for array in _task(path, None) if array is not None] for path in support]
    with client_of(ctx) as client:
        found = client.adapt_many(model, tasks, *options)
    if as_json:
        emit_json(found)
        return
    for path, adapted in zip(support, found, strict=True):
        console.print(f"[bold]{escape(str(path))}[/]", highlight=False)
        _report(adapted)


def _pictures(
    ctx: typer.Context, model: str, folder: Path, query: Path | None, options: Any, out: Path | None, as_json: bool
) -> None:
    classes, queries = classes_in(folder), [] if query is None else files_of(query)
    _need_queries(out, query is not None)
    with client_of(ctx) as client:
        adapted = client.adapt_pictures(model, dict(enumerate(classes.values())), queries, *options)
    names = {"classes": list(classes), "queries": [str(path) for path in queries]}
    _tell(adapted, out, as_json, **names)


def _task(path: Path, query: Path | None) -> tuple[Any, Any, Any]:
    arrays = read_arrays(path)
    x, y = (pick(arrays, path, name, f"support_{name}") for name in ("x", "y"))
    return x, y, arrays.get("query_x") if query is None else pick(read_arrays(query), query, "x", "query_x")


def _need_queries(out: Path | None, there: bool) -> None:
    if out is not None and not there:
        raise typer.BadParameter("--out needs something to predict: give --query, or query_x in the support file")


def _tell(adapted: Adaptation, out: Path | None, as_json: bool, **names: list[str]) -> None:
    if out is not None and adapted.prediction is not None:
        save(out, adapted.prediction)
    emit_json({**adapted.model_dump(mode="json"), **names}) if as_json else _report(adapted, **names)


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


def _report(adapted: Adaptation, classes: Sequence[str] = (), queries: Sequence[str] = ()) -> None:
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
        predictions(adapted.prediction, classes, queries)


def predictions(found: Prediction, classes: Sequence[str] = (), queries: Sequence[str] = ()) -> None:
    """Show a prediction as a table, its first rows at least; classes and queries by their names if they have some."""
    labels, outputs = found.labels, found.outputs
    if labels is not None:
        rows = [
            (queries[i] if queries else i, classes[label] if classes else label, percent(max(row)))
            for i, (label, row) in enumerate(zip(labels, outputs, strict=True))
        ]
        console.print(table(("QUERY", "LABEL", "PROBABILITY"), rows[:SHOWN_ROWS]))
    else:
        values = [(i, "  ".join(map(shown, row))) for i, row in enumerate(outputs)]
        console.print(table(("QUERY", "VALUE"), values[:SHOWN_ROWS]))
    if len(outputs) > SHOWN_ROWS:
        console.print(f"[dim]and {len(outputs) - SHOWN_ROWS} more; --json or --out gives all[/]")
