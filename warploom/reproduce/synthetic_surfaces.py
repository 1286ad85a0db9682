"""Synthetic surfaces: where paths go with a learned map of the plane, and how deep they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warploom.reproduce.base import Arm, Claim, Means, Measure, Size
from warploom.reproduce.comparison import Comparison
from warploom.reproduce.figures import bars, plots, save

PANELS = 4
CANDIDATES = 60


class SyntheticSurfaces(Comparison):
    """Online WarpGrad on a point of the plane, against plain gradient descent, on new surfaces and starts."""

    name = "synthetic-surfaces"
    title = "Random surfaces: regret after 100 steps"
    source = "Flennerhag et al., ICLR 2020, appendix D"

    def arms(self, size: Size) -> Sequence[Arm]:
        """A warped point and a plain one."""
        rounds = 2 if size == "tiny" else 100
        return [
            Arm("warpgrad", _spec(size, {"name": "warpgrad-online", "initialisation": "none"}, "warp_point", rounds)),
            Arm("gradient descent", _spec(size, {"name": "none"}, "point", 0)),
        ]

    def measures(self, size: Size) -> Sequence[Measure]:
        """How far above the lowest place of the square the paths end, over random surfaces and starts."""
        return [Measure("regret", "regret", tasks=10 if size == "tiny" else 500, better="lower")]

    def claims(self, size: Size) -> Sequence[Claim]:  # noqa: ARG002
        """Nothing is claimed about the average; an independent study found none to claim."""

        def close(means: Means) -> bool:
            return means["warpgrad"]["regret"].value < 1.1 * means["gradient descent"]["regret"].value

        return [Claim("on average over random surfaces the map costs no more than a tenth of the regret", close)]

    def notes(self, size: Size) -> str:  # noqa: ARG002
        """How the panels are chosen."""
        return (
            f"The picture shows {PANELS} test tasks out of {CANDIDATES} where plain gradient descent ends furthest "
            "above the lowest place: chosen hard starts, as in the paper, and no evidence for an average gain."
        )

    def draw(self, size: Size, means: Means, runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:  # noqa: ARG002
        """Regrets, and paths on the hardest of the candidates."""
        measure = self.measures(size)[0]
        arms = list(self.arms(size))
        return [
            bars(self.title, arms, measure, means, out / f"{self.name}.png"),
            _paths(arms, out / f"{self.name}-paths.png"),
        ]


def _spec(size: Size, algorithm: Mapping[str, Any], model: str, rounds: int) -> dict[str, Any]:
    tiny = size == "tiny"
    return {
        "algorithm": {"inner_lr": 0.1, "inner_steps": 10 if tiny else 100, **algorithm},
        "task": {"name": "surfaces"},
        "model": {"name": model, "spread": 0},
        "training": {"rounds": rounds, "meta_batch": 2 if tiny else 10, "unit": 2 if tiny else 10},
        "evaluation": {"every": 100_000, "tasks": 4},
    }


def _paths(arms: Sequence[Arm], path: Path) -> Path:
    """Contours of the chosen surfaces with each arm's path, after training it once more with seed 0."""
    import torch

    from warploom.build import build
    from warploom.local import train
    from warploom.spec import JobSpec
    from warploom.tasks.surfaces import height
    from warploom.types import TaskRef

    tracks: dict[str, torch.Tensor] = {}
    rows = ends = torch.empty(0)
    for arm in arms:
        spec = JobSpec.parse(arm.spec)
        algorithm, meta = build(spec), train(spec).meta
        tasks = algorithm.family.sample([TaskRef("test", 10 * i, 1) for i in range(CANDIDATES)])
        batches = algorithm._batches(tasks, list(range(CANDIDATES)))
        places = [
            _places(algorithm, meta, step.theta_T, tasks.support_x)
            for step in algorithm._path(meta, tasks, batches, None, None)
        ]
        tracks[arm.label] = torch.stack(places, 1)
        rows = tasks.support_x[:, 0]
        lowest = height(tasks.support_y[:, 0, :2], rows[:, 2:])
        ends = height(tracks[arm.label][:, -1], rows[:, 2:]) - lowest
    plt = plots()
    figure, axes = plt.subplots(1, PANELS, figsize=(4 * PANELS, 4))
    line = torch.linspace(-3, 3, 121)
    grid = torch.cartesian_prod(line, line)
    # The last arm is plain gradient descent: its worst ends are the hard starts.
    for panel, t in zip(axes, ends.argsort(descending=True)[:PANELS].tolist(), strict=True):
        levels = height(grid, rows[t, 2:]).view(121, 121)
        panel.contourf(line, line, levels.T, 30, cmap="viridis")
        for (label, track), colour in zip(tracks.items(), ("#ff5a36", "white"), strict=True):
            panel.plot(track[t, :, 0], track[t, :, 1], color=colour, marker=".", markersize=3, label=label)
        panel.plot(*rows[t, :2].tolist(), "k*", markersize=9)
        panel.set(xlim=(-3, 3), ylim=(-3, 3))
    axes[0].legend(fontsize=8)
    figure.suptitle("Hard starts (star) of gradient descent, and the same with a learned map")
    return save(figure, path)


def _places(algorithm: Any, meta: Any, theta_T: Any, x_TS: Any) -> Any:
    from warploom.types import Adapted

    outputs = algorithm.predict(meta, Adapted(dict(theta_T), {}, x_TS.new_zeros(1, 1)), x_TS)
    return outputs[:, 0, :2].detach()
