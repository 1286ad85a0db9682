"""MAML: the initialisation from which a few steps of adaptation do well on queries.

Symbols: θ the initialisation, U_K(θ) the parameters after K inner steps on the support set, L_Q the loss of the
queries. The meta-gradient of a task is ∇θ L_Q(U_K(θ)), with all second-order terms; truncated to n steps, with those
of the last n alone, and with n = 0 it is that of `fomaml`.
Source: Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, Algorithm 2.

Departure: queries are normalised by the support set's statistics by default (`bn_mode` task), so that training sees
what serving does; the authors' code normalises them by their own batch (`bn_mode` transductive).
"""

from __future__ import annotations

from warploom.algorithms.configs.maml import MAMLConfig
from warploom.algorithms.unrolled import Unrolled


class MAML(Unrolled[MAMLConfig]):
    """Backpropagation through the inner loop to its start."""
