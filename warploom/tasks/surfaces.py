"""Random surfaces over the plane: the synthetic experiment of WarpGrad.

Shape suffixes: T tasks, B batch, R rows of 9 numbers (x1, x2, s, a1, a2, a3, b1, b2, b3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from warploom.functional import forward
from warploom.models.base import Model
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.surfaces import SurfacesConfig
from warploom.tasks.data import OneTask, stack
from warploom.types import TaskRef, Tasks

SQUARE = 3.0  # where the lowest place is looked for


class Surfaces(TaskFamily[SurfacesConfig]):
    """A task is one surface and one start; what adapts is the place, not a net.

    Support and query are the same single row: the start and the surface's seven coefficients. A model turns it into
    a row whose first two numbers are the place where it now is (`point` and `warp_point` move the start), and the
    loss is the height of the surface there. So the start varies from task to task though all share θ_0. The target
    row holds the lowest place of the square [-3, 3]² (found on grids of falling width), which no loss looks at.

    Each run of `starts` indices of a stream has one surface. s is one of 1..10, a_i of -1..1, b_i of -5..5, whole
    numbers all; (0, 0, 0) for b is the flat surface, and stays in.

    Args:
        config: see `SurfacesConfig`.

    Example:
        >>> tuple(Surfaces(SurfacesConfig()).sample([TaskRef("train", 0, seed=1)]).support_x.shape)
        (1, 1, 9)

    Source: Flennerhag et al., ICLR 2020, appendix D: lr 0.1, 100 steps, 100 meta-steps of one surface and 10 starts.
    Departures: the paper prints the last term with x1² twice, almost surely for MATLAB's `peaks`; see `printed`.
    """

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Returns:
            Tasks with x and y [T, 1, 9], float32, queries equal to the support.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def loss(
        self,
        model: Model,
        params: Mapping[str, Tensor],
        x_B: Tensor,
        y_B: Tensor,  # noqa: ARG002
        stats: Mapping[str, Tensor],
    ) -> Tensor:
        """The height of the surface at the model's place; `y_B` has no say."""
        rows_B = forward(model, params, x_B, stats)
        return height(rows_B[..., :2], x_B[..., 2:], printed=self.config.printed).mean()

    def scores(self, outputs_Q: Tensor, y_Q: Tensor) -> dict[str, float]:
        """`loss`, the height reached, and `regret`, how much that is above the lowest place of the square."""
        reached, lowest = (
            float(height(rows[..., :2], y_Q[..., 2:], printed=self.config.printed).mean()) for rows in (outputs_Q, y_Q)
        )
        return {"loss": reached, "regret": reached - lowest}

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        chance = generator("surfaces", ref.split, ref.seed, ref.index // config.starts)
        s = torch.randint(1, 11, (1,), generator=chance)
        a, b = torch.randint(-1, 2, (3,), generator=chance), torch.randint(-5, 6, (3,), generator=chance)
        surface = torch.cat([s, a, b]).double()
        own = generator("surfaces", "start", ref.split, ref.seed, ref.index)
        start = (2 * torch.rand(2, generator=own, dtype=torch.float64) - 1) * config.start_max
        x_1R = torch.cat([start, surface]).unsqueeze(0).float()
        y_1R = torch.cat([lowest_place(surface, printed=config.printed), surface]).unsqueeze(0).float()
        return OneTask(x_1R, y_1R, x_1R.clone(), y_1R.clone())


def height(place: Tensor, surface: Tensor, *, printed: bool = False) -> Tensor:
    """f(x) = b1 (a1−x1)² e^(−x1²−(x2+a2)²) − b2 (x1/s − x1³ − x2⁵) e^(−x1²−x2²) − b3 e^(−(x1+a3)²−x2²).

    Args:
        place: x, [..., 2].
        surface: s, a1, a2, a3, b1, b2, b3, [..., 7].
        printed: x1² in place of the last x2².

    Returns:
        f, [...].

    Example:
        >>> round(float(height(torch.tensor([0.0, 0.0]), torch.tensor([5.0, 1, 1, 1, 3, 10, 1 / 3]))), 4)
        0.981

    Source: Flennerhag et al., ICLR 2020, appendix D.
    """
    x1, x2 = place.unbind(-1)
    s, a1, a2, a3, b1, b2, b3 = surface.unbind(-1)
    last = x1 if printed else x2
    return (
        b1 * (a1 - x1) ** 2 * torch.exp(-(x1**2) - (x2 + a2) ** 2)
        - b2 * (x1 / s - x1**3 - x2**5) * torch.exp(-(x1**2) - x2**2)
        - b3 * torch.exp(-((x1 + a3) ** 2) - last**2)
    )


def lowest_place(surface: Tensor, *, printed: bool = False) -> Tensor:
    """Where the surface is lowest in the square [-3, 3]², to 1e-5, [2] float64; the first of equals."""
    return torch.tensor(_lowest(tuple(surface.tolist()), printed), dtype=torch.float64)


@lru_cache(maxsize=1024)
def _lowest(surface: tuple[float, ...], printed: bool) -> list[float]:
    coefficients = torch.tensor(surface, dtype=torch.float64)
    centre, width, points = torch.zeros(2, dtype=torch.float64), SQUARE, 61
    for _ in range(5):
        line = torch.linspace(-width, width, points, dtype=torch.float64)
        places = (centre + torch.cartesian_prod(line, line)).clamp(-SQUARE, SQUARE)
        centre = places[height(places, coefficients, printed=printed).argmin()]
        width, points = width * 2 / (points - 1), 21
    found: list[float] = centre.tolist()
    return found
