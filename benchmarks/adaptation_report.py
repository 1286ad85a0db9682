"""What `benchmarks/adaptation.py` found, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GOAL_ADDED_MS, GOAL_RATIO, GOAL_CLIENTS = 5.0, 8.0, 32
# When calls in this process wait longer than this for a core, others wanted the cores too.
QUIET = 1.1
Row = Mapping[str, Any]


def write(folder: Path, rows: Sequence[Row], killed: Sequence[Row], facts: Row) -> None:
    """Write adaptation.md and adaptation.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"facts": facts, "rows": list(rows), "killed": list(killed)}
    (folder / "adaptation.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "adaptation.md").write_text("\n".join(_page(rows, killed, facts)) + "\n")


def _page(rows: Sequence[Row], killed: Sequence[Row], facts: Row) -> list[str]:
    lone, loads = [row for row in rows if not row["clients"]], [row for row in rows if row["clients"]]
    return [
        "# Adaptation under load",
        "",
        "```sh",
        facts["command"],
        "```",
        "",
        f"{facts['cores']} cores for everything: two Redis servers, the API, one adapter, Ray, and the clients; a"
        f" second service without batching idles beside it and takes its turns. {facts['seconds'] / 60:.1f} minutes."
        f" {_company(facts, lone)} `sinusoid`: 1-40-40-1 with warp layers, 10 examples, 10"
        " queries, 10 steps. `omniglot`: four blocks of 64 filters with warp layers, 28 x 28, 5 examples, 10 queries,"
        f" 5 steps. Medians over {_rounds(loads)}; milliseconds.",
        "",
        f"{facts['answers']} answers compared with those of the same model in one process: {_faults(facts)}.",
        "",
        "## A lone client",
        "",
        "| model | in process: p50 | service: p50 | added at p50 | median of the differences of neighbours |",
        "|---|---|---|---|---|",
        *(
            f"| {r['model']} | {r['in_process_ms']:.1f} | {r['service_ms']:.1f} | {_added(r):.1f}"
            f" | {r['added_ms']:.1f} |"
            for r in lone
        ),
        "",
        "Calls in process and through the service take turns. Both vary by more than what the service adds, and not"
        " together, so that the two ways to say it differ.",
        "",
        "## Clients at once",
        "",
        "| model | clients | p50 | p95 | p99 | requests/s | without batching: p50 | p99 | requests/s | ratio"
        " | in process, one by one: requests/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_load_row(row, lone) for row in loads),
        "",
        "Processor time a request, in milliseconds, which neighbours on the machine change less:",
        "",
        "| model | clients | API | adapter | Redis | clients | without batching: API | adapter |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['model']} | {r['clients']} | {r['batched']['api_ms']:.2f} | {r['batched']['adapter_ms']:.2f} |"
            f" {r['batched']['redis_ms']:.2f} | {r['batched']['generator_ms']:.2f} | {r['alone']['api_ms']:.2f} |"
            f" {r['alone']['adapter_ms']:.2f} |"
            for r in loads
        ),
        "",
        "## An adapter killed",
        "",
        "| model | clients | requests | lost or wrong | p50 | p99 | longest, s |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {k['model']} | {k['clients']} | {k['requests']} | {k['faults']} | {k['p50_ms']:.0f} | {k['p99_ms']:.0f}"
            f" | {k['longest_s']:.1f} |"
            for k in killed
        ),
        "",
        "## Goals",
        "",
        *(f"* {line}" for line in _verdicts(rows, lone)),
    ]


def _rounds(loads: Sequence[Row]) -> str:
    counts = sorted({row["batched"]["rounds"] for row in loads})
    return " to ".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1]))) + " rounds"


def _company(facts: Row, lone: Sequence[Row]) -> str:
    share = max(row["wall_over_cpu"] for row in lone)
    who = "The machine was quiet" if share <= QUIET else "Others wanted the cores too"
    return (
        f"{who}: a call in this process took {share:.2f} times its processor time, load average before the start"
        f" {facts['load_average']:.1f}."
    )


def _added(row: Row) -> float:
    """Milliseconds between the p50 of calls through the service and that of the same calls in process."""
    return float(row["service_ms"]) - float(row["in_process_ms"])


def _load_row(row: Row, lone: Sequence[Row]) -> str:
    batched, alone = row["batched"], row["alone"]
    local = next(r["in_process_ms"] for r in lone if r["model"] == row["model"])
    return (
        f"| {row['model']} | {row['clients']} | {batched['p50_ms']:.0f} | {batched['p95_ms']:.0f} |"
        f" {batched['p99_ms']:.0f} | {batched['per_second']:.1f} | {alone['p50_ms']:.0f} | {alone['p99_ms']:.0f} |"
        f" {alone['per_second']:.1f} | {batched['per_second'] / alone['per_second']:.1f} | {1000 / local:.1f} |"
    )


def _faults(facts: Row) -> str:
    return ", ".join(f"{count} x {what}" for what, count in facts["faults"].items()) or "none lost, none wrong"


def _verdicts(rows: Sequence[Row], lone: Sequence[Row]) -> list[str]:
    said = []
    for row in lone:
        if row["model"] == "sinusoid":
            met = _added(row) <= GOAL_ADDED_MS
            word = _word(met) if row["wall_over_cpu"] <= QUIET else "undecided, because others wanted the cores"
            said.append(
                f"{word}: at most {GOAL_ADDED_MS:g} ms added for a lone client at p50: {_added(row):.1f}"
                f" ({row['added_ms']:.1f} as the median of the differences of neighbours)"
            )
    for row in rows:
        if row["model"] == "sinusoid" and row["clients"] == GOAL_CLIENTS:
            ratio = row["batched"]["per_second"] / row["alone"]["per_second"]
            said.append(
                f"{_word(ratio >= GOAL_RATIO)}: at {GOAL_CLIENTS} clients at least {GOAL_RATIO:g} times the requests a"
                f" second of the service without batching: {ratio:.1f}"
            )
    return said


def _word(met: bool) -> str:
    return "met" if met else "missed"
