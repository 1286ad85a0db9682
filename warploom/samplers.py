"""Which stored units the learner gets: the samplers of async mode, as functions of what is stored and a seed.

    uniform              every unit with equal probability
    fifo, lifo           the oldest, the newest
    consuming            the oldest; each unit is used once
    without_replacement  epochs: no unit is drawn again before all that are stored were drawn; what arrives in an epoch
                         belongs to it
    prioritized          P(i) = (1 − ε) p_i^α / Σ p^α + ε/N, with importance weights w_i = (min P / P(i))^β
    fresh                P(i) = (1 − ε) 2^(−lag_i/h) / Σ 2^(−lag/h) + ε/N, lag in versions

p is the unit's priority, α `priority_exponent`, β `importance_exponent`, ε `uniform_share`, h `half_life`, N the number
of stored units. The units of one sample are distinct: after each draw the unit that was drawn is left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SamplerName = Literal["uniform", "fifo", "lifo", "consuming", "without_replacement", "prioritized", "fresh"]
EVEN: frozenset[SamplerName] = frozenset({"uniform", "fifo", "consuming", "without_replacement"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A sampler and its settings.

    Args:
        name: one of the table above.
        priority_exponent: α; 0 makes all units alike.
        importance_exponent: β; 1 makes the expected meta-gradient that of uniform sampling.
        uniform_share: ε, so that no unit starves.
        half_life: h, in versions.
    """

    name: SamplerName = "uniform"
    priority_exponent: float = 0.6
    importance_exponent: float = 0.4
    uniform_share: float = 0.1
    half_life: float = 4.0


UNIFORM = Sampler()


@dataclass(frozen=True, slots=True)
class Stored:
    """What a sampler sees of a complete unit; `epoch` is the last one in which it was drawn, from 1 on."""

    unit: int
    version: int
    parts: int
    uses: int = 0
    priority: float = 1.0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Pick:
    """A unit that was drawn, its importance weight, and the epoch in which it was drawn."""

    stored: Stored
    weight: float = 1.0
    epoch: int = 0


class SumTree:
    """Weights in a binary tree of sums: to draw by weight and to change one weight take O(log n).

    Args:
        weights: not negative.

    Example:
        >>> tree = SumTree([1.0, 2.0, 3.0])
        >>> tree.total, [tree.find(mass) for mass in (0.5, 1.5, 2.9, 5.9)]
        (6.0, [0, 1, 1, 2])
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._leaves = 1 << max(0, len(weights) - 1).bit_length()
        self._sums = [0.0] * self._leaves + list(weights) + [0.0] * (self._leaves - len(weights))
        for node in range(self._leaves - 1, 0, -1):
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return self._sums[1]

    def find(self, mass: float) -> int:
        """The index at which the running sum passes `mass`, from 0 to below `total`."""
        node = 1
        while node < self._leaves:
            node *= 2
            # Round-off may leave a little mass at the end of a branch; a branch without weight is never entered.
            if mass >= self._sums[node] and self._sums[node + 1] > 0:
                mass -= self._sums[node]
                node += 1
        return node - self._leaves

    def put(self, index: int, weight: float) -> None:
        """Change one weight."""
        node = index + self._leaves
        self._sums[node] = weight
        while node > 1:
            node //= 2
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]


def choose(
    sampler: Sampler, stored: Sequence[Stored], n: int, *, seed: int, version: int, epoch: int
) -> tuple[list[Pick], int]:
    """`n` distinct units of those stored, which are given in the order of their numbers, and the epoch afterwards.

    Args:
        sampler: how.
        stored: at least `n` units.
        n: how many.
        seed: names the choice.
        version: the current one.
        epoch: the current one, from 1 on.
    """
    rng = random.Random(seed)  # noqa: S311
    if sampler.name in ("fifo", "consuming"):
        return [Pick(one) for one in stored[:n]], epoch
    if sampler.name == "lifo":
        return [Pick(one) for one in reversed(stored[-n:])], epoch
    if sampler.name == "without_replacement":
        return _epochs(stored, n, rng, epoch)
    if sampler.name == "uniform":
        return [Pick(one) for one in rng.sample(stored, n)], epoch
    probabilities = chances(sampler, stored, version)
    beta = sampler.importance_exponent if sampler.name == "prioritized" else 0.0
    least = min(probabilities)
    chosen = _by_weight(probabilities, n, rng)
    return [Pick(stored[i], (least / probabilities[i]) ** beta) for i in chosen], epoch


def chances(sampler: Sampler, stored: Sequence[Stored], version: int) -> list[float]:
    """P(i) of `prioritized` and `fresh`: the probability that unit i is drawn first."""
    if sampler.name == "prioritized":
        own = [one.priority**sampler.priority_exponent for one in stored]
    else:
        own = [2.0 ** (-(version - one.version) / sampler.half_life) for one in stored]
    total, share = sum(own), sampler.uniform_share
    return [(1 - share) * value / total + share / len(own) for value in own]


def _by_weight(weights: Sequence[float], n: int, rng: random.Random) -> list[int]:
    tree = SumTree(weights)
    chosen = []
    for _ in range(n):
        chosen.append(tree.find(rng.random() * tree.total))
        tree.put(chosen[-1], 0.0)
    return chosen


def _epochs(stored: Sequence[Stored], n: int, rng: random.Random, epoch: int) -> tuple[list[Pick], int]:
    due = [one for one in stored if one.epoch < epoch]
    if len(due) >= n:
        return [Pick(one, epoch=epoch) for one in rng.sample(due, n)], epoch
    rest = [one for one in stored if one.epoch >= epoch]
    again = [Pick(one, epoch=epoch + 1) for one in rng.sample(rest, n - len(due))]
    return [Pick(one, epoch=epoch) for one in rng.sample(due, len(due))] + again, epoch + 1
