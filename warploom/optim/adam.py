"""Adam, AdamW and AMSGrad.

Source: Kingma, Ba, ICLR 2015, arXiv:1412.6980, Algorithm 1; Loshchilov, Hutter, ICLR 2019, arXiv:1711.05101,
Algorithm 2; Reddi, Kale, Kumar, ICLR 2018, arXiv:1904.09237, Algorithm 2 (with bias correction, as in torch.optim).
"""

from __future__ import annotations

import torch

from warploom.optim.base import InnerOptimiser, Setting, Settings, decayed, grown, of, off, root, zeros
from warploom.optim.configs import AdamConfig, AdamWConfig, AMSGradConfig
from warploom.types import Tensors


class Adam(InnerOptimiser[AdamConfig | AdamWConfig | AMSGradConfig]):
    """θ ← θ − α m̂ / (√v̂ + ε), with m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², m̂ = m / (1 − β₁^t), v̂ likewise.

    As torch.optim.Adam and AdamW. AMSGrad puts the largest v so far in place of v. Decay goes into g, or, with
    AdamW, shrinks θ by 1 − αλ before the step.

    Where g has been exactly 0 so far the derivative of the step with respect to g is −α / ε (times a factor of the
    βs): right, and large. It does no harm to coordinates that stay at 0, such as those of a dead unit.
    """

    def settings(self) -> dict[str, Setting]:
        """`beta1`, `beta2`, `eps` and `weight_decay`."""
        c = self.config
        return {"beta1": c.beta1, "beta2": c.beta2, "eps": c.eps, "weight_decay": c.weight_decay}

    @property
    def amsgrad(self) -> bool:
        """Whether the divisor never falls."""
        return isinstance(self.config, AMSGradConfig) or self.config.amsgrad

    def init(self, theta: Tensors) -> Tensors:
        """Step count, zero moments."""
        return zeros(theta, "first", "second", *(["largest"] if self.amsgrad else []))

    def step(self, theta: Tensors, gradient: Tensors, state: Tensors, settings: Settings) -> tuple[Tensors, Tensors]:
        """One step."""
        moved: Tensors = {}
        t = state["step"] + 1
        after: Tensors = {"step": t}
        for name, value in theta.items():
            beta1, beta2 = of(settings["beta1"], name), of(settings["beta2"], name)
            lr, decay = of(settings["lr"], name), of(settings["weight_decay"], name)
            g, start = gradient[name], value
            if not isinstance(self.config, AdamWConfig):
                g = decayed(g, value, decay)
            elif not off(decay):
                start = value * (1 - lr * decay)
            first = beta1 * state[f"first/{name}"] + (1 - beta1) * g
            second = beta2 * state[f"second/{name}"] + (1 - beta2) * g * g
            after |= {f"first/{name}": first, f"second/{name}": second}
            if self.amsgrad:
                second = torch.maximum(state[f"largest/{name}"], second)
                after[f"largest/{name}"] = second
            divisor = root(second) / grown(beta2, t).sqrt() + of(settings["eps"], name)
            moved[name] = start - lr / grown(beta1, t) * first / divisor
        return moved, after
