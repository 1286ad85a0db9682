"""Structured logs."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from service.settings import Settings
from warploom.printable import printable

SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def formatter(*processors: structlog.typing.Processor) -> logging.Formatter:
    """A formatter of records, whether structlog or the standard library made them; the last processor renders."""
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    # Before any renderer: one that is left to format a trace shows the values of its variables, API keys among them.
    chain: list[Any] = [meta, structlog.processors.format_exc_info, *processors]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=SHARED, processors=chain)


def one_line(_: Any, __: str, said: structlog.typing.EventDict) -> str:
    """A record as its message and `name=value` for the rest; time and level are kept elsewhere.

    Example:
        >>> one_line(None, "", {"event": "a round", "number": 3, "level": "info"})
        'a round number=3'
    """
    rest = {name: value for name, value in said.items() if name not in ("event", "level", "timestamp", "exception")}
    text = " ".join([str(said.get("event", "")), *(f"{name}={value}" for name, value in rest.items())])
    return f"{text}\n{said['exception']}" if "exception" in said else text


def tamed(_: Any, __: str, said: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A record whose texts cannot forge lines of the log: all on one line, and below it a trace, indented.

    Example:
        >>> tamed(None, "", {"event": "a\\nb", "exception": "Traceback\\nValueError: 1"})["exception"]
        '    Traceback\\n    ValueError: 1'
    """
    plain = {name: printable(value) if isinstance(value, str) else value for name, value in said.items()}
    if isinstance(said.get("exception"), str):
        plain["exception"] = "\n".join(f"    {printable(line)}" for line in said["exception"].split("\n"))
    return plain


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's log to one stream, for people or as JSON lines.

    Args:
        settings: `log_level` and `log_json`.
        stream: default standard error.
    """
    console = (tamed, structlog.dev.ConsoleRenderer(colors=False))
    renderers: tuple[structlog.typing.Processor, ...] = (
        (structlog.processors.JSONRenderer(),) if settings.log_json else console
    )
    structlog.configure(
        processors=[
            *SHARED,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter(*renderers))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Its lines of every request would hide ours; what fails is said by whoever asked.
    logging.getLogger("httpx").setLevel(max(logging.WARNING, root.level))
