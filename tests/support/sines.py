"""A short training on sine waves: what was learned of the inner loop against the inner loop as it came."""

from __future__ import annotations

from warploom.local import train
from warploom.spec import JobSpec


def after_training(algorithm: str, *, rounds: int = 25, seed: int = 0, **options: object) -> tuple[float, float]:
    """Mean query loss over held-out tasks after training, and before, on the same tasks from the same start."""
    settings = {"inner_steps": 8, "inner_lr": 0.03, **options}
    spec = JobSpec.parse(
        {
            "algorithm": {"name": algorithm, **settings},
            "task": {"name": "sinusoid", "shots": 50, "queries": 50},
            "model": {"name": "mlp", "hidden": [32, 32], "activation": "tanh"},
            "training": {"rounds": rounds, "meta_batch": 16, "unit": 16, "seed": seed},
            "evaluation": {"every": rounds, "tasks": 50},
        }
    )
    curve = train(spec).curve
    assert curve[-1]["diverged"] == 0
    return curve[-1]["loss"], curve[0]["loss"]
