"""Continual sine regression: five sub-tasks one after the other, and what is left of the first ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison
from warploom.reproduce.figures import lines

ORDERS = {"as trained": [0, 1, 2, 3, 4], "another order": [1, 3, 4, 2, 0]}


class ContinualSine(Comparison):
    """Warps that were meta-learned not to forget, against the same net without meta-training and without warps."""

    name = "continual-sine"
    title = "Continual sine regression: loss on each sub-task after all five"
    source = "Flennerhag et al., ICLR 2020, section 5.4"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Two algorithms, two orders of the sub-tasks at test time."""
        steps = 10 if size == "tiny" else 100
        rounds = {"tiny": 2, "cpu": 150, "paper": 20_000}[size]
        record = 10 if size == "cpu" else 2
        arms = []
        for order, sequence in ORDERS.items():
            for label, algorithm, model in (
                ("warpgrad", {"name": "warpgrad", "initialisation": "none", "record_every": record}, "warp_mlp"),
                ("none", {"name": "none"}, "mlp"),
            ):
                spec: dict[str, Any] = {
                    "algorithm": {"inner_lr": 0.02, "inner_steps": steps, **algorithm},
                    "task": {"name": "continual-sine", "order": sequence},
                    "model": {"name": model, "hidden": [100, 100, 100, 100]},
                    "training": {"rounds": 0 if label == "none" else rounds, "meta_batch": 5, "unit": 5},
                    "evaluation": {"every": 100_000, "tasks": 4 if size == "tiny" else 100},
                }
                arms.append(Arm(label, spec, group=order))
        return arms

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """The mean loss, and that of each sub-task in the order in which they came."""
        each = [Measure(f"sub-task {i + 1}", f"loss_task{i}", better="lower") for i in range(5)]
        return [Measure("all sub-tasks", "loss", better="lower"), *each]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """What meta-learning must bring."""

        def remembers(order: str) -> Claim:
            def holds(means: Means) -> bool:
                warp, plain = means[f"warpgrad | {order}"], means[f"none | {order}"]
                return warp["sub-task 1"].value < 0.5 * plain["sub-task 1"].value

            return Claim(f"the loss on the first sub-task is far below that of a plain net ({order})", holds)

        return [remembers(order) for order in ORDERS]

    def notes(self, size: Size) -> str:  # noqa: ARG002
        """What the paper leaves open."""
        return (
            "The paper's amplitudes, widths and step sizes are not published; they are our choice. "
            "Both orders are trained and tested as such."
        )

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:  # noqa: ARG002
        """Loss by sub-task."""
        series = {
            key.replace(" | ", ", "): [
                (i + 1.0, row[f"sub-task {i + 1}"].value, row[f"sub-task {i + 1}"].half) for i in range(5)
            ]
            for key, row in means.items()
        }
        labels = ("sub-task, in the order of learning", "loss after all five")
        return [lines(self.title, series, labels, out / f"{self.name}.png", log="y")]
