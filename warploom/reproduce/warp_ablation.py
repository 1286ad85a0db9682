"""Which warp layers help: kinds of warp, offline against online, exact against approximate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison
from warploom.reproduce.figures import before_and_after

# Held-out accuracy with 25 training alphabets, Table 3 of the paper, as quoted by others.
PAPER = {
    "no warp (leap)": "74.8",
    "scaling (FiLM)": "77.5",
    "1x1 conv": "79.4",
    "3x3 conv": "84.4 ± 1.7",
    "3x3 + BN + residual + ReLU": "86.3",
    "two 3x3 + BN + residual": "88.0",
    "3x3 conv, online": "76.3",
    "3x3 conv, approximate": "83.1 ± 2.7",
}

PROBED = ("3x3 conv", "two 3x3 + BN + residual")


class WarpAblation(Comparison):
    """The ladder of appendix F, from no warp to a two-layer residual one."""

    name = "warp-ablation"
    title = "Warp layers on Omniglot, 20-way multi-shot, 25 alphabets"
    source = "Flennerhag et al., ICLR 2020, appendix F, Table 3"

    def arms(self, size: Size) -> Sequence[Arm]:
        """The rows of the table that our options cover."""
        warped: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "scaling (FiLM)": ({}, {"warp_kind": "film"}),
            "1x1 conv": ({}, {"warp_kernel": 1}),
            "3x3 conv": ({}, {}),
            "3x3 + BN + residual + ReLU": (
                {},
                {"warp_batch_norm": True, "warp_residual": True, "warp_activation": "relu"},
            ),
            "two 3x3 + BN + residual": ({}, {"warp_layers": 2, "warp_batch_norm": True, "warp_residual": True}),
            "3x3 conv, online": ({"name": "warpgrad-online"}, {}),
            "3x3 conv, approximate": ({"approximate": True}, {}),
        }
        arms = [_arm(size, "no warp (leap)", {"name": "leap", "outer_lr": 0.1}, {"name": "conv4"})]
        record = {"record_every": _SHAPE[size]["record"]}
        for label, (options, model) in warped.items():
            offline = {} if options.get("name") == "warpgrad-online" else record
            algorithm = {"name": "warpgrad", "warp_lr": _WARP_LR[size], "init_lr": 0.1, **offline, **options}
            arms.append(_arm(size, label, algorithm, {"name": "warp_conv4", **_START[size], **model}))
        return arms

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """Accuracy on the held-out drawings."""
        return [Measure("accuracy", "accuracy", percent=True)]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """Steps of the ladder."""

        def above(high: str, low: str, by: float = 0.0) -> Claim:
            def holds(means: Means) -> bool:
                return means[high]["accuracy"].value > means[low]["accuracy"].value + by

            return Claim(f"{high} beats {low}" + (f" by more than {100 * by:.0f} points" if by else ""), holds)

        return [
            above("1x1 conv", "no warp (leap)"),
            above("3x3 conv", "1x1 conv"),
            above("two 3x3 + BN + residual", "3x3 conv"),
            above("3x3 conv", "3x3 conv, online", 0.03),
        ]

    def default_seeds(self, size: Size) -> int:
        """One at the cpu size, which takes half an hour."""
        return 1 if size == "cpu" else super().default_seeds(size)

    def notes(self, size: Size) -> str:
        """How this size differs from the paper's setting."""
        shape = _SHAPE[size]
        start = "at random" if size == "paper" else "as the identity"
        return (
            f"{shape['filters']} filters, task batch {shape['batch']}, meta-batch {shape['meta_batch']}, "
            f"{shape['rounds']} rounds, {shape['steps']} inner steps, one point in {shape['record']} replayed; Leap "
            f"initialisation; outer SGD of 0.1, and {_WARP_LR[size]} for the warps, which start {start}. "
            "Compare the order with the paper's, not the values. The second figure "
            "has activations before and after warp layers, in adapted nets on held-out drawings (centre: 0 when every "
            "channel has mean zero; correlation: 0 when the covariance is diagonal; spread: 0 when all channels vary "
            "alike). The paper finds activations behind a warp centred, with a covariance other than the identity."
        )

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
        """The ladder, and the activations."""
        return [
            *super().draw(size, means, runs, out),
            before_and_after([run for run in runs if run.get("activations")], out / f"{self.name}-activations.png"),
        ]


_SHAPE: dict[Size, dict[str, int]] = {
    "tiny": {"filters": 4, "batch": 8, "meta_batch": 2, "rounds": 1, "steps": 3, "record": 1, "ways": 5},
    "cpu": {"filters": 32, "batch": 20, "meta_batch": 5, "rounds": 25, "steps": 50, "record": 3, "ways": 20},
    "paper": {"filters": 64, "batch": 128, "meta_batch": 20, "rounds": 1000, "steps": 100, "record": 1, "ways": 20},
}

# As in the multi-shot experiment: few rounds are too few for warps that start at random.
_WARP_LR: dict[Size, float] = {"tiny": 0.4, "cpu": 0.4, "paper": 0.1}
_START: dict[Size, dict[str, str]] = {
    "tiny": {"warp_init": "identity"},
    "cpu": {"warp_init": "identity"},
    "paper": {},
}


def _arm(size: Size, label: str, algorithm: Mapping[str, Any], model: Mapping[str, Any]) -> Arm:
    shape = _SHAPE[size]
    spec = {
        "algorithm": {
            "outer": "sgd",
            "inner_lr": 0.1,
            "inner_steps": shape["steps"],
            "inner_batch": shape["batch"],
            **algorithm,
        },
        "task": {
            "name": "omniglot",
            "protocol": "multi-shot",
            "ways": shape["ways"],
            "train_alphabets": 3 if size == "tiny" else 25,
        },
        "model": {"filters": shape["filters"], **model},
        "training": {"rounds": shape["rounds"], "meta_batch": shape["meta_batch"]},
        "evaluation": {"every": 100_000, "tasks": 2 if size == "tiny" else 10},
    }
    return Arm(label, spec, {"accuracy": PAPER[label]}, activations=label in PROBED)
