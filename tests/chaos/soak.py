"""`python -m tests.chaos.soak`: a long drill from the command line; `make soak` calls it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.driver import Drill, Plan, Report, table
from tests.chaos.faults import FAULTS


def main() -> int:
    """0 when everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind, value in (
        ("jobs", int, 20),
        ("faults", int, 100),
        ("seed", int, 0),
        ("rounds", int, 1000),
        ("at-once", int, 4),
        ("supervisors", int, 2),
        ("shards", int, 2),
        ("minutes", float, 90.0),
        ("least-gap", float, 2.0),
        ("most-gap", float, 10.0),
    ):
        parser.add_argument(f"--{name}", type=kind, default=value)
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--home", type=Path, help="folder for the stack and its logs; stays when it is named")
    parser.add_argument("--out", type=Path, help="write the table here too")
    given = parser.parse_args()
    plan = Plan(
        jobs=given.jobs,
        faults=given.faults,
        seed=given.seed,
        rounds=given.rounds,
        at_once=given.at_once,
        supervisors=given.supervisors,
        shards=given.shards,
        minutes=given.minutes,
        gap_s=(given.least_gap, given.most_gap),
        kinds=tuple(given.kinds),
    )
    # As an exception, so that the stack and its small disk go too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="warploom-soak-") as scratch:
        home = given.home or Path(scratch)
        report = Drill(home, plan, _say).run()
    text = summary(plan, report)
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text)
    return 1 if report.broken else 0


def summary(plan: Plan, report: Report) -> str:
    """The report as Markdown."""
    ends = {state: sum(job.state == state for job in report.jobs) for state in {job.state for job in report.jobs}}
    lines = [
        f"{plan.jobs} jobs of {plan.rounds} rounds, {plan.at_once} at a time, {len(report.done)} faults, "
        f"seed {plan.seed}; {plan.supervisors} supervisors, {plan.shards} replay servers, {os.cpu_count()} cores; "
        f"quiet run {report.quiet_s:.0f} s, with faults {report.chaos_s:.0f} s.",
        "",
        f"Ends: {ends}. Runs lost and gone on from a checkpoint: {sum(job.retries for job in report.jobs)}; "
        f"generations: {sum(job.generation for job in report.jobs)}.",
        "",
        table(report),
        "",
        "Broken: " + ("nothing." if not report.broken else ""),
        *(f"- {what}" for what in report.broken),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
