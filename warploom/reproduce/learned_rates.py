"""Learned step sizes, losses and optimisers against fixed ones, on sine waves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison


class LearnedRates(Comparison):
    """What is learned is the inner loop itself; all start from the same kind of random initialisation."""

    name = "learned-rates"
    title = "Learned step sizes, losses and optimisers on sine waves"
    source = "Grefenstette et al. 2019, arXiv:1910.01727, section 5.1; Bechtle et al. 2021 (ML3)"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Fixed SGD and Adam, and three learned inner loops."""
        steps = 3 if size == "tiny" else 20
        rounds = {"tiny": 2, "cpu": 500, "paper": 500}[size]
        algorithms: dict[str, dict[str, Any]] = {
            "fixed sgd": {"name": "none", "inner_lr": 0.01},
            "fixed adam": {"name": "none", "inner_lr": 0.01, "inner_optimiser": "adam"},
            "learned rates": {"name": "learned-rates", "inner_lr": 0.01},
            "learned loss": {"name": "learned-loss", "inner_lr": 0.01},
            "learned optimiser": {"name": "learned-optimizer", "inner_lr": 0.01},
        }
        return [
            Arm(
                label,
                {
                    "algorithm": {"inner_steps": steps, **algorithm},
                    "task": {"name": "sinusoid", "shots": 10, "queries": 50},
                    "model": {"name": "mlp", "hidden": [40, 40]},
                    "training": {
                        "rounds": 0 if algorithm["name"] == "none" else rounds,
                        "meta_batch": 5,
                        "unit": 5,
                    },
                    "evaluation": {"every": 100_000, "tasks": 4 if size == "tiny" else 100},
                },
            )
            for label, algorithm in algorithms.items()
        ]

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """Mean squared error after adaptation."""
        return [Measure("query loss", "loss", better="lower")]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """Learned inner loops are no worse than the fixed ones that they start from."""

        def beats(label: str) -> Claim:
            def holds(means: Means) -> bool:
                return means[label]["query loss"].value < means["fixed sgd"]["query loss"].value

            return Claim(f"{label} reaches a lower loss than the fixed step in as many steps", holds)

        return [beats(label) for label in ("learned rates", "learned loss", "learned optimiser")]
