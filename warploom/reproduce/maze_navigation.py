"""Maze navigation: a net gated by a meta-learned LSTM against plain and plastic recurrent nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison
from warploom.reproduce.figures import bars, lines


class MazeNavigation(Comparison):
    """Returns on new episodes with the parameters that training leaves, without further adaptation."""

    name = "maze-navigation"
    title = "Maze with an invisible goal: mean return of an episode"
    source = "Flennerhag et al., ICLR 2020, section 5.3; Miconi et al., ICLR 2019"

    def arms(self, size: Size) -> Sequence[Arm]:
        """Four nets; those without warp are trained by plain actor-critic steps."""
        shape = _SHAPE[size]
        plain = {"name": "reptile", "inner_steps": 1, "inner_lr": 1.0, "outer": "adam", "outer_lr": shape["lr"]}
        warped = {
            "name": "warpgrad-online",
            "inner_steps": 1,
            "inner_lr": 0.1,
            "initialisation": "reptile",
            "init_lr": shape["lr"],
            "warp_lr": shape["lr"],
        }
        arms = {
            "warp_rnn": (warped, {}),
            "rnn": (plain, {}),
            "plastic_rnn, simple": (plain, {"modulation": "simple"}),
            "plastic_rnn, retroactive": (plain, {"modulation": "retroactive"}),
        }
        return [
            Arm(
                label,
                {
                    "algorithm": algorithm,
                    "task": {
                        "name": "maze",
                        "cells": shape["cells"],
                        "horizon": shape["horizon"],
                        "episodes": shape["episodes"],
                        "query_episodes": shape["episodes"],
                    },
                    "model": {"name": label.split(",")[0], "hidden": shape["hidden"], **model},
                    "training": {"rounds": shape["rounds"], "meta_batch": 1},
                    "evaluation": {"every": max(1, shape["rounds"] // 10), "tasks": shape["tasks"]},
                },
            )
            for label, (algorithm, model) in arms.items()
        ]

    def measures(self, size: Size) -> Sequence[Measure]:  # noqa: ARG002
        """The sum of an episode's rewards."""
        return [Measure("return", "return", steps=0)]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """The paper's ranking at equal episodes."""

        def ahead(means: Means) -> bool:
            return means["warp_rnn"]["return"].value > means["rnn"]["return"].value

        return [Claim("the warped net earns more than the plain one after as many episodes", ahead)]

    def notes(self, size: Size) -> str:
        """How this size differs from the paper's setting."""
        shape = _SHAPE[size]
        episodes = shape["rounds"] * shape["episodes"]
        return (
            f"{shape['cells']} x {shape['cells']} cells, {shape['horizon']} steps, {shape['hidden']} units, "
            f"{episodes} episodes in all. The paper: 11 x 11 cells, 200 steps, 100 units, 200,000 episodes."
        )

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
        """Returns at the end, and along training."""
        series: dict[str, list[tuple[float, float, float]]] = {}
        episodes = _SHAPE[size]["episodes"]
        for run in runs:
            if run["seed"] == 0:
                series[run["key"]] = [(row["meta_step"] * episodes, row["return"], 0.0) for row in run["curve"]]
        labels = ("episodes", "return (after one more step)")
        return [
            bars(self.title, list(self.arms(size)), self.measures(size)[0], means, out / f"{self.name}.png"),
            lines(f"{self.title}, seed 0", series, labels, out / f"{self.name}-curve.png"),
        ]


_SHAPE: dict[Size, dict[str, Any]] = {
    "tiny": {"cells": 5, "horizon": 5, "episodes": 2, "hidden": 4, "rounds": 2, "tasks": 2, "lr": 0.001},
    "cpu": {"cells": 5, "horizon": 50, "episodes": 30, "hidden": 64, "rounds": 300, "tasks": 10, "lr": 0.01},
    "paper": {"cells": 11, "horizon": 200, "episodes": 30, "hidden": 100, "rounds": 6700, "tasks": 10, "lr": 0.001},
}
