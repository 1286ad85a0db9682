"""The literal table of experiments; reading it loads none of them."""

from __future__ import annotations

from typing import cast

from warploom.errors import InvalidInput
from warploom.registry import load
from warploom.reproduce.base import Experiment

EXPERIMENTS: dict[str, str] = {
    "synthetic-surfaces": "warploom.reproduce.synthetic_surfaces:SyntheticSurfaces",
    "omniglot-multi-shot": "warploom.reproduce.omniglot_multi_shot:OmniglotMultiShot",
    "warp-ablation": "warploom.reproduce.warp_ablation:WarpAblation",
    "maze-navigation": "warploom.reproduce.maze_navigation:MazeNavigation",
    "continual-sine": "warploom.reproduce.continual_sine:ContinualSine",
    "omniglot-few-shot": "warploom.reproduce.omniglot_few_shot:OmniglotFewShot",
    "adjoint-synthetic": "warploom.reproduce.adjoint_synthetic:AdjointSynthetic",
    "collaborative-filtering": "warploom.reproduce.collaborative_filtering:CollaborativeFiltering",
    "learned-rates": "warploom.reproduce.learned_rates:LearnedRates",
    "architectures": "warploom.reproduce.architectures:Architectures",
    "memory": "warploom.reproduce.memory:Memory",
}


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        InvalidInput: there is none; the message lists those there are.
    """
    if name not in EXPERIMENTS:
        known = ", ".join(sorted(EXPERIMENTS))
        raise InvalidInput(
            f"unknown experiment {name!r}; there are: {known}", field="/experiment", rule=f"one of: {known}", value=name
        )
    return cast("Experiment", load(EXPERIMENTS[name])())
