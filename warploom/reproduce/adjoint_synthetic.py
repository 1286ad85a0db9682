"""A-MAML's synthetic regression: error against fine-tuning steps on CosMixture and Alpine functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison
from warploom.reproduce.figures import lines

FINE_TUNING: dict[Size, tuple[int, ...]] = {"tiny": (0, 5), "cpu": (0, 50, 200), "paper": (0, 50, 200, 500, 1000)}


class AdjointSynthetic(Comparison):
    """All initialisations are fine-tuned alike: Adam at 0.001 with weight decay, on the support points."""

    name = "adjoint-synthetic"
    title = "Synthetic regression: nRMSE against fine-tuning steps"
    source = "Li et al., AISTATS 2023, arXiv:2110.08432, the CosMixture and Alpine experiments"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Six algorithms on two families."""
        families = ["cosmixture"] if size == "tiny" else ["cosmixture", "alpine"]
        return [
            Arm(label, _spec(size, algorithm, family), group=family)
            for family in families
            for label, algorithm in _algorithms(size).items()
        ]

    def measures(self, size: Size) -> Sequence[Measure]:
        """nRMSE after some steps of fine-tuning."""
        adam = {"name": "adam", "weight_decay": 1e-6}
        tuning = {"name": "none", "inner_lr": 1e-3, "inner_optimiser": adam}
        return [Measure(f"nRMSE after {n}", "nrmse", steps=n, better="lower", adapt=tuning) for n in FINE_TUNING[size]]

    def claims(self, size: Size) -> Sequence[Claim]:
        """A-MAML is ahead, and most at the start."""
        first, last = (f"nRMSE after {n}" for n in (FINE_TUNING[size][0], FINE_TUNING[size][-1]))

        def best(family: str, measure: str) -> Claim:
            def holds(means: Means) -> bool:
                rows = {key: row[measure].value for key, row in means.items() if key.endswith(family)}
                return min(rows, key=lambda key: rows[key]).startswith("a-maml")

            return Claim(f"A-MAML has the lowest {measure} steps on {family}", holds)

        return [best(family, measure) for family in ("cosmixture", "alpine") for measure in (first, last)]

    def notes(self, size: Size) -> str:
        """How this size differs from the paper's setting."""
        outer = "Adam at 0.003 in place of the paper's SGD" if size == "cpu" else "SGD"
        return (
            "Two hidden layers of 32 with tanh, 50 support and 50 query points, 100 training tasks. "
            f"{_ROUNDS[size]} rounds of 5 tasks; {_STEPS[size]} inner steps, 10 for MAML, 1 for MAML-1; "
            f"outer loop: {outer}. "
            "The paper's numbers are known from figures only, and are not repeated here."
        )

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:  # noqa: ARG002
        """One picture for each family."""
        paths = []
        for family in dict.fromkeys(arm.group for arm in self.arms(size)):
            series = {
                key.split(" | ")[0]: [
                    (float(measure.steps or 0), row[measure.name].value, row[measure.name].half)
                    for measure in self.measures(size)
                ]
                for key, row in means.items()
                if key.endswith(family)
            }
            path = out / f"{self.name}-{family}.png"
            paths.append(lines(f"{self.title}, {family}", series, ("fine-tuning steps", "nRMSE"), path))
        return paths


_ROUNDS: dict[Size, int] = {"tiny": 2, "cpu": 150, "paper": 5000}
_STEPS: dict[Size, int] = {"tiny": 3, "cpu": 50, "paper": 200}


def _algorithms(size: Size) -> dict[str, dict[str, Any]]:
    steps = _STEPS[size]
    # The paper's SGD needs thousands of rounds; with the few of the cpu size, no initialisation would get anywhere.
    outer: dict[str, Any] = {"outer": "adam", "outer_lr": 0.003} if size == "cpu" else {"outer": "sgd"}
    shared = {"inner_lr": 0.01, "outer_lr": 0.01, **outer}
    return {
        "a-maml": {"name": "a-maml", "inner_steps": steps, **shared},
        "maml": {"name": "maml", "inner_steps": min(10, steps), **shared},
        "maml-1": {"name": "maml", "inner_steps": 1, **shared},
        "imaml": {"name": "imaml", "inner_steps": steps, **shared},
        "fomaml": {"name": "fomaml", "inner_steps": steps, **shared},
        "reptile": {"name": "reptile", "inner_steps": steps, "inner_lr": 0.01, "outer_lr": 0.1, **outer},
    }


def _spec(size: Size, algorithm: Mapping[str, Any], family: str) -> dict[str, Any]:
    points = 10 if size == "tiny" else 50
    return {
        "algorithm": dict(algorithm),
        "task": {"name": family, "shots": points, "queries": points},
        "model": {"name": "mlp", "hidden": [32, 32], "activation": "tanh"},
        "training": {"rounds": _ROUNDS[size], "meta_batch": 5, "unit": 5},
        "evaluation": {"every": 100_000, "tasks": {"tiny": 4, "cpu": 50, "paper": 100}[size]},
    }
