"""First-order MAML: the gradient of the queries where adaptation ends, taken for that where it starts.

Symbols: θ the initialisation, θ̃ = U_K(θ) the parameters after K inner steps, L_Q the loss of the queries, ω all that
is learned but does not adapt. The meta-gradient of a task is (∇L_Q)(θ̃) for θ, and ∂L_Q(θ̃; ω)/∂ω for ω.
Source: Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, section 5.2; Nichol, Achiam, Schulman, 2018,
arXiv:1803.02999, section 5, for its expansion.

The path is the one that `adapt` walks, so that no graph outlives a step: memory is flat in K. The derivative of θ̃ in
θ counts as the identity whatever the inner optimiser does, decay of weights included.
Shape suffixes: T tasks, S support, Q query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad_and_value

from warploom.algorithms.configs.fomaml import FOMAMLConfig
from warploom.algorithms.unrolled import Initialised
from warploom.functional import over_tasks
from warploom.types import MetaState, Tasks, Tensors


class FOMAML(Initialised[FOMAMLConfig]):
    """One gradient, after the inner loop."""

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """∇L_Q at θ̃ for each task."""
        batches = self._batches(tasks, seeds)
        first_T = last_T = torch.empty(0)
        theta_T: Tensors = {}
        for step in self._path(meta, tasks, batches, None, None):
            first_T = step.loss_T if step.k == 0 else first_T
            theta_T, last_T = step.theta_T, step.loss_T
        x_TS, stats = self.normaliser(batches, tasks), self.given_stats(meta)
        held = {name: meta.params[name] for name in self.learns() if name not in self.adaptable}

        def one(theta: Tensors, x_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> tuple[Tensors, Tensor]:
            def objective(own: Tensors) -> Tensor:
                end = {name: own[name] for name in theta}
                return self.outer_loss({**meta.params, **own}, end, x_S, x_Q, y_Q, stats)

            found: tuple[Tensors, Tensor] = grad_and_value(objective)({**held, **theta})
            return found

        gradient_T, query_T = over_tasks(
            one, theta_T, x_TS, tasks.query_x, tasks.query_y, vectorise=self._vectorise(tasks.support_x)
        )
        return gradient_T, {"support_loss_first": first_T, "support_loss": last_T, "query_loss": query_T}
