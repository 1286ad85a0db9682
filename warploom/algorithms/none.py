"""No meta-training: the floor that every algorithm must beat."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from warploom.algorithms.base import Algorithm
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.inner import Precondition
from warploom.optim.kfac import natural_gradient
from warploom.outer import Outer
from warploom.types import Experience, Gradient, MetaState, Tasks, Tensors


class NoMeta(Algorithm[NoMetaConfig]):
    """Every task adapts from the same random initialisation, which never moves.

    Rollouts adapt all the same, so that the curves of a job show what adaptation alone reaches.
    """

    def rollout(self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]) -> list[Experience]:
        """Losses before and after adaptation; nothing to learn from."""
        losses_TK = self.adapt(meta, tasks, seeds=seeds).losses_TK
        return [
            Experience(
                ref=ref,
                version=meta.version,
                metrics={
                    "support_loss_first": float(losses_TK[t, 0]),
                    "support_loss": float(losses_TK[t, -1]),
                },
            )
            for t, ref in enumerate(tasks.refs)
        ]

    def meta_gradient(self, meta: MetaState, experiences: Sequence[Experience], *, seed: int) -> Gradient:  # noqa: ARG002
        """Empty."""
        return Gradient({}, float(len(experiences)))

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """Nothing moves."""
        return Outer("sgd", {})

    def precondition(self, meta: MetaState) -> Precondition | None:
        """F⁻¹∇L where the config names a Fisher matrix."""
        rule = self.config.preconditioner
        if rule is None:
            return None
        fixed, stats = self.fixed(meta.params), self.given_stats(meta)

        def natural(theta: Tensors, gradient: Tensors, x_B: Tensor, y_B: Tensor) -> Tensors:
            return natural_gradient(self.model, rule, {**fixed, **theta}, gradient, x_B, y_B, stats)

        return natural
