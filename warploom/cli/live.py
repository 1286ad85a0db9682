"""A run as it happens: a live bar on a terminal, plain lines in a file, JSON lines for programs."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from warploom.cli.output import emit_line, percent, state
from warploom.records import FINAL_STATES


class RunView:
    """Shows the events of one training run, from a service or from `warploom.local`.

    Args:
        console: where to.
        title: what the bar is called.
        as_json: print each event as one JSON line instead.
    """

    def __init__(self, console: Console, title: str, *, as_json: bool = False) -> None:
        self.console = console
        self.title = title
        self.as_json = as_json
        self.loss = math.nan
        self.accuracy: float | None = None
        self.last_state: str | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/]"),
            TimeRemainingColumn(),
            console=console,
        )
        self._live = console.is_terminal and not as_json
        self._task = self._bar.add_task(f"{escape(title)} [dim]waiting[/]", total=None, numbers="")
        self._tenth = -1

    def __enter__(self) -> RunView:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bar.stop()

    def on_event(self, kind: str, data: dict[str, Any]) -> None:
        """Show one event; kinds that this version does not know are passed over."""
        if self.as_json:
            emit_line({"kind": kind, **data})
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(data)

    def _on_state(self, data: dict[str, Any]) -> None:
        self.last_state = str(data.get("state"))
        self._describe(state(self.last_state))
        self._say(f"{state(self.last_state)}", always=self.last_state in FINAL_STATES)
        if message := data.get("message"):
            self._say(f"[red]{escape(str(message))}[/]", always=True)

    def _on_phase(self, data: dict[str, Any]) -> None:
        self._describe(f"[cyan]{escape(str(data.get('phase')))}[/]")
        self._say(f"phase: {escape(str(data.get('phase')))}")

    def _on_round(self, data: dict[str, Any]) -> None:
        step, total = int(data.get("meta_step", 0)), int(data.get("total", 0))
        loss = data.get("query_loss")
        self.loss = float(data.get("support_loss", math.nan) if loss is None else loss)
        self._bar.update(self._task, completed=step, total=total or None, numbers=self._numbers())
        tenth = 10 * step // total if total else step
        if tenth != self._tenth:
            self._tenth = tenth
            self._say(f"round {step}/{total}  {self._numbers()}")

    def _on_evaluation(self, data: dict[str, Any]) -> None:
        self.accuracy = data.get("accuracy")
        self._bar.update(self._task, numbers=self._numbers())
        loss = data.get("loss")
        what = f"accuracy {percent(self.accuracy)}" if self.accuracy is not None else ""
        if (interval := data.get("accuracy_ci95")) is not None and self.accuracy is not None:
            what += f" ± {percent(interval)}"
        losses = "" if loss is None else f"loss {loss:.4g}"
        self._say(f"held out at round {int(data.get('meta_step', 0))}: {'  '.join(filter(None, (what, losses)))}")

    def _on_warning(self, data: dict[str, Any]) -> None:
        self._say(f"[yellow]warning:[/] {escape(str(data.get('message')))}", always=True)

    def _on_worker_lost(self, data: dict[str, Any]) -> None:
        who = f"{data.get('role')} {data.get('ident')}"
        self._say(f"[yellow]lost {escape(who)}:[/] {escape(str(data.get('message')))}", always=True)

    def _on_shard_lost(self, data: dict[str, Any]) -> None:
        what = f"lost a replay server, {data.get('was')}"
        self._say(f"[yellow]{escape(what)}:[/] {escape(str(data.get('message')))}", always=True)

    def _on_shard_back(self, data: dict[str, Any]) -> None:
        self._say(f"the replay server {escape(str(data.get('now')))} is used again", always=True)

    def _on_model(self, data: dict[str, Any]) -> None:
        self._say(f"model [bold]{escape(str(data.get('name')))}[/] version {data.get('version')}", always=True)

    def _numbers(self) -> str:
        parts = [] if math.isnan(self.loss) else [f"loss {self.loss:.4g}"]
        if self.accuracy is not None:
            parts.append(f"held out [bold]{percent(self.accuracy)}[/]")
        return "  ".join(parts)

    def _describe(self, what: str) -> None:
        self._bar.update(self._task, description=f"{escape(self.title)} {what}")

    def _say(self, line: str, *, always: bool = False) -> None:
        # On a terminal the bar tells most of it; in a log file every line is wanted.
        if not self.as_json and (always or not self._live):
            self._bar.console.print(f"{escape(self.title)}: {line}", highlight=False, soft_wrap=True)
