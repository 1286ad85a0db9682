"""Collaborative filtering: each user a task, items' features in, the rating out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison

# Meta-test nRMSE on MovieLens 100K after 50 steps (MAML 5), 10 and 20 support ratings, in the paper's own units.
PAPER = {"a-maml": ".053", "imaml": ".082", "maml": ".123", "fomaml": ".174", "reptile": ".166"}


class CollaborativeFiltering(Comparison):
    """Users of a generated low-rank world, or of MovieLens where its files are."""

    name = "collaborative-filtering"
    title = "Ratings of new users from ten of them"
    source = "Li et al., AISTATS 2023, arXiv:2110.08432, the Jester and MovieLens experiments"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Five algorithms and no meta-training."""
        steps = 3 if size == "tiny" else 50
        rounds = {"tiny": 2, "cpu": 300, "paper": 5000}[size]
        shared: dict[str, Any] = {"inner_lr": 0.01, "inner_steps": steps}
        algorithms: dict[str, dict[str, Any]] = {
            "a-maml": {"name": "a-maml", "outer_lr": 0.001, **shared},
            "imaml": {"name": "imaml", "outer_lr": 0.001, **shared},
            "maml": {"name": "maml", "outer_lr": 0.001, **shared, "inner_steps": min(5, steps)},
            "fomaml": {"name": "fomaml", "outer_lr": 0.001, **shared},
            "reptile": {"name": "reptile", **shared},
            "none": {"name": "none", **shared},
        }
        task: dict[str, Any] = {"name": "ratings", "shots": 10, "queries": 15}
        if size == "paper":
            task["data"] = "ml-100k"
        return [
            Arm(
                label,
                {
                    "algorithm": algorithm,
                    "task": task,
                    "model": {"name": "mlp", "hidden": [40, 40], "activation": "tanh"},
                    "training": {"rounds": 0 if label == "none" else rounds, "meta_batch": 5, "unit": 5},
                    "evaluation": {"every": 100_000, "tasks": 4 if size == "tiny" else 100},
                },
                {"nRMSE": PAPER[label]} if size == "paper" and label in PAPER else {},
            )
            for label, algorithm in algorithms.items()
        ]

    def measures(self, size: Size) -> Sequence[Measure]:
        """nRMSE on ratings that the adapted model has not seen, after the same number of steps for all."""
        steps = 3 if size == "tiny" else 50
        return [Measure("nRMSE", "nrmse", steps=steps, better="lower")]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """The order of the paper's table."""

        def ahead(label: str) -> Claim:
            def holds(means: Means) -> bool:
                return means["a-maml"]["nRMSE"].value < means[label]["nRMSE"].value

            return Claim(f"A-MAML is ahead of {label}", holds)

        return [ahead(label) for label in ("imaml", "maml", "fomaml", "reptile", "none")]

    def notes(self, size: Size) -> str:
        """What was run instead of the paper's data."""
        if size == "paper":
            return "MovieLens 100K. The paper does not say which item features it used; ours are the family's own."
        return (
            "A generated low-rank world in place of MovieLens and Jester, whose files must be fetched from their "
            "publishers: this shows the comparison, not a reproduction of the paper's numbers."
        )
