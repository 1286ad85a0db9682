"""MAML++ with other nets and other inner optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warploom.reproduce.base import Arm, Measure, Size
from warploom.reproduce.comparison import Comparison

# Omniglot 5-way 1-shot, as printed in the paper.
PAPER = {
    ("vgg", "sgd"): "99.62 ± .08",
    ("vgg", "adam"): "99.62 ± .08",
    ("resnet-4", "sgd"): "99.91 ± .05",
    ("densenet-8", "sgd"): "99.54 ± .33",
}


class Architectures(Comparison):
    """Net by inner optimiser, with the inner settings learned."""

    name = "architectures"
    title = "Nets and inner optimisers, Omniglot 5-way 1-shot"
    source = "Grefenstette et al. 2019, arXiv:1910.01727, Table 1"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Rows of the table; the larger nets at the paper's size only."""
        nets: dict[str, dict[str, Any]] = {
            "vgg": {"name": "vgg"},
            "resnet-4": {"name": "resnet", "depth": 4},
            "densenet-8": {"name": "densenet"},
        }
        if size == "tiny":
            nets = {"vgg": nets["vgg"]}
        if size == "paper":
            nets |= {"resnet-8": {"name": "resnet", "depth": 8}, "resnet-12": {"name": "resnet", "depth": 12}}
        thin = {"tiny": 4, "cpu": 16, "paper": 64}[size]
        width: dict[str, dict[str, Any]] = {
            "vgg": {"filters": thin},
            "resnet": {"widths": [thin] * 4},
            "densenet": {"growth": max(thin // 2, 4)},
        }
        rounds = {"tiny": 1, "cpu": 150, "paper": 50_000}[size]
        arms = []
        for net, model in nets.items():
            own: Mapping[str, Any] = width[model["name"]]
            for optimiser, lr in (("sgd", 0.1), ("adam", 0.01)):
                spec: dict[str, Any] = {
                    "algorithm": {
                        "name": "maml++",
                        "inner_steps": 1 if size != "paper" else 5,
                        "inner_lr": lr,
                        "inner_optimiser": optimiser,
                        "outer_lr": 0.006 if size == "cpu" else 0.001,
                    },
                    "task": {
                        "name": "omniglot",
                        "protocol": "few-shot",
                        "ways": 5,
                        "shots": 1,
                        "queries": 5,
                        "augment": False,
                    },
                    "model": {**model, **own, "bn_mode": "transductive"},
                    "training": {
                        "rounds": rounds,
                        "meta_batch": 2 if size == "tiny" else 8,
                        "schedule": "cosine" if size == "cpu" else "constant",
                    },
                    "evaluation": {"every": 100_000, "tasks": 2 if size == "tiny" else 20},
                }
                printed = PAPER.get((net, optimiser))
                arms.append(Arm(f"{net}, {optimiser}", spec, {"accuracy": printed} if printed else {}))
        return arms

    def measures(self, size: Size) -> Sequence[Measure]:
        """Accuracy on held-out characters."""
        return [
            Measure("accuracy", "accuracy", tasks=4 if size == "tiny" else 100, percent=True),
            Measure(
                "interval over tasks", "accuracy_ci95", tasks=4 if size == "tiny" else 100, percent=True, better="lower"
            ),
        ]

    def default_seeds(self, size: Size) -> int:
        """One at the cpu size; the test tasks say how sure the accuracies are."""
        return 1 if size == "cpu" else super().default_seeds(size)

    def notes(self, size: Size) -> str:
        """How this size differs from the paper's setting."""
        return "" if size == "paper" else "Few rounds and thin nets: a comparison in time, not the paper's values."
