"""MAML: the initialisation from which a few steps of adaptation do well on queries.

Symbols: θ the initialisation, U_K(θ) the parameters after K inner steps on the support set, L_Q the loss of the
queries. The meta-gradient of a task is ∇θ L_Q(U_K(θ)), with all second-order terms.
Source: Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, Algorithm 2.

Departure: queries are normalised by the support set's statistics by default (`bn_mode` task), so that training sees
what serving does; the authors' code normalises them by their own batch (`bn_mode` transductive).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad_and_value

from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.ready import Ready
from warploom.functional import over_tasks
from warploom.inner import unroll
from warploom.outer import Outer
from warploom.types import MetaState, Tasks, Tensors


class MAML(Ready[MAMLConfig]):
    """Backpropagation through the inner loop, for any inner optimiser; memory grows with K."""

    first_order = False

    def task_gradients(
        self, meta: MetaState, tasks: Tasks, *, seeds: Sequence[int]
    ) -> tuple[Tensors, dict[str, Tensor]]:
        """∇θ L_Q(U_K(θ)) for each task."""
        config = self.config
        batches = self._batches(tasks, seeds)
        x_TKB, y_TKB = batches.ahead(config.inner_steps)
        x_TS = batches.everything()
        stats = self.given_stats(meta)
        cut = 0 if config.truncate is None else max(0, config.inner_steps - config.truncate)

        def one(x_KB: Tensor, y_KB: Tensor, x_S: Tensor, x_Q: Tensor, y_Q: Tensor) -> tuple[Tensors, Tensor, Tensor]:
            def objective(learned: Tensors) -> tuple[Tensor, Tensor]:
                lr = x_KB.new_tensor(config.inner_lr)
                path = list(
                    unroll(self, learned, x_KB, y_KB, lr=lr, stats=stats, first_order=self.first_order, cut=cut)
                )
                theta, losses = path[-1][0], [value for _, value in path]
                outer = self.outer_loss(learned, theta, x_S, x_Q, y_Q, stats)
                return outer, torch.stack(losses).detach()

            gradient, (value, losses_K) = grad_and_value(objective, has_aux=True)(meta.params)
            return gradient, value, losses_K

        gradient_T, query_T, losses_TK = over_tasks(
            one, x_TKB, y_TKB, x_TS, tasks.query_x, tasks.query_y, vectorise=self._vectorise(tasks.support_x)
        )
        metrics = {"support_loss_first": losses_TK[:, 0], "support_loss": losses_TK[:, -1], "query_loss": query_T}
        return gradient_T, metrics

    def outer(self, version: int = 0) -> Outer:  # noqa: ARG002
        """β for every meta-parameter."""
        config = self.config
        return Outer(config.outer, dict.fromkeys(self.learns(), config.outer_lr), config.clip_norm)

    def learns(self) -> list[str]:
        """The names of the meta-parameters that the outer loop moves."""
        return list(self.model.roles)
