"""Omniglot, N-way K-shot: MAML, FOMAML, ANIL, Reptile, iMAML and MAML++ on held-out characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison

# Published accuracies, 5-way 1-shot, as far as they were seen in print.
PAPER = {
    "maml": "98.7 ± 0.4",
    "fomaml": "98.3 ± 0.5",
    "reptile": "95.39 ± 0.09",
    "imaml": "99.16 ± 0.35",
    "maml++": "99.47",
}


class OmniglotFewShot(Comparison):
    """Which initialisation learns five new characters from one drawing each."""

    name = "omniglot-few-shot"
    title = "Omniglot, 5-way 1-shot: accuracy on held-out characters"
    source = "Finn et al., ICML 2017, Table 1; Nichol et al. 2018; Rajeswaran et al., NeurIPS 2019, Table 2"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Six algorithms from the same family and net."""
        return [
            Arm(label, self._spec(size, algorithm, rounds), {"accuracy": PAPER[label]} if label in PAPER else {})
            for label, (algorithm, rounds) in _algorithms(size).items()
        ]

    def measures(self, size: Size) -> Sequence[Measure]:
        """Accuracy over many held-out tasks."""
        return [Measure("accuracy", "accuracy", tasks=4 if size == "tiny" else 600, percent=True)]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """What the literature says at any size of training."""

        def accuracy(means: Means, label: str) -> float:
            return means[label]["accuracy"].value

        return [
            Claim("MAML reaches 95 %", lambda m: accuracy(m, "maml") >= 0.95),
            Claim("FOMAML is within 2 points of MAML", lambda m: accuracy(m, "fomaml") >= accuracy(m, "maml") - 0.02),
            Claim("ANIL is within 2 points of MAML", lambda m: accuracy(m, "anil") >= accuracy(m, "maml") - 0.02),
            Claim("iMAML reaches 95 %", lambda m: accuracy(m, "imaml") >= 0.95),
        ]

    def _spec(self, size: Size, algorithm: Mapping[str, Any], rounds: int) -> dict[str, Any]:
        shape = {
            "tiny": {"filters": 4, "ways": 5, "meta_batch": 2},
            "cpu": {"filters": 32, "ways": 5, "meta_batch": 8},
            "paper": {"filters": 64, "ways": 5, "meta_batch": 32},
        }[size]
        meta_batch = shape["meta_batch"]
        return {
            "algorithm": dict(algorithm),
            "task": {
                "name": "omniglot",
                "protocol": "few-shot",
                "ways": shape["ways"],
                "shots": 1,
                "queries": 5,
                "augment": False,
            },
            "model": {"name": "conv4", "filters": shape["filters"], "bn_mode": "transductive"},
            "training": {"rounds": rounds, "meta_batch": meta_batch, "unit": meta_batch},
            "evaluation": {"every": 100_000, "tasks": 2 if size == "tiny" else 20},
        }


_IMPLICIT = {"inner_lr": 0.4, "inner_steps": 3, "proximal": 0.5, "cg_steps": 2, "outer_lr": 0.003}


def _algorithms(size: Size) -> dict[str, tuple[dict[str, Any], int]]:
    rounds = {"tiny": 2, "cpu": 1500, "paper": 60_000}[size]
    unrolled = {"inner_lr": 0.4, "inner_steps": 1, "outer_lr": 0.003 if size == "cpu" else 0.001}
    return {
        "maml": ({"name": "maml", **unrolled}, rounds),
        "fomaml": ({"name": "fomaml", **unrolled}, rounds),
        "anil": ({"name": "anil", **unrolled}, rounds),
        "maml++": ({"name": "maml++", **unrolled}, rounds),
        "imaml": ({"name": "imaml", **_IMPLICIT}, rounds),
        "reptile": ({"name": "reptile"}, rounds),
    }
