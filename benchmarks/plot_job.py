"""Table and figure of a job's held-out curve, from the service's own events.

python benchmarks/plot_job.py JOB --baseline JOB --out docs/results/omniglot
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from warploom.client import Client


def history(client: Client, job_id: str) -> dict[str, Any]:
    """Spec, evaluations and seconds per round of a job."""
    job = client.job(job_id)
    events = list(client.events(job_id)) if job.ended_at else []
    rounds = [event.data for event in events if event.kind == "round"]
    seconds = [row["seconds"] for row in rounds]
    learn = [row["learn_s"] for row in rounds]
    return {
        "job": job.id,
        "state": job.state,
        "spec": job.spec,
        "evaluations": [event.data for event in events if event.kind == "evaluation"],
        "rounds": len(rounds),
        "seconds_a_round": {"median": median(seconds), "fastest": min(seconds)} if seconds else None,
        "seconds_learning": {"median": median(learn), "fastest": min(learn)} if learn else None,
    }


def draw(run: dict[str, Any], baseline: dict[str, Any], path: Path) -> None:
    """Accuracy against rounds with its 95 % interval; the baseline as a band."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4))
    steps = [row["meta_step"] for row in run["evaluations"]]
    middle = [100 * row["accuracy"] for row in run["evaluations"]]
    spread = [100 * row["accuracy_ci95"] for row in run["evaluations"]]
    axes.errorbar(steps, middle, yerr=spread, marker="o", capsize=3, label=run["spec"]["algorithm"]["name"])
    floor = baseline["evaluations"][-1]
    low, high = (100 * (floor["accuracy"] + sign * floor["accuracy_ci95"]) for sign in (-1, 1))
    axes.axhspan(low, high, alpha=0.2, color="grey")
    axes.axhline(100 * floor["accuracy"], color="grey", label=baseline["spec"]["algorithm"]["name"])
    axes.set(xlabel="rounds", ylabel="held-out accuracy after adaptation, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Read two jobs from the service, write `OUT.json` and `OUT.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with Client() as client:
        run, baseline = history(client, options.job), history(client, options.baseline)
    options.out.with_suffix(".json").write_text(json.dumps({"run": run, "baseline": baseline}, indent=1) + "\n")
    draw(run, baseline, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
