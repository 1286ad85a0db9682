"""One round of the Omniglot job, piece by piece, against a plain eager loop, side by side on one core.

The job is 5 tasks x 50 inner steps with batches of 20, and one meta-gradient for each stored point. The plain loop is
what one writes first: a torch module, its optimiser for the inner step, `create_graph` and a second forward pass for
Eq 11. Timings on shared machines are noisy, so the pieces take turns, and medians and their ratio are printed.

    python benchmarks/omniglot_round.py [repeats]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from warploom.algorithms.configs.warpgrad import WarpGradConfig
from warploom.algorithms.warpgrad import WarpGrad
from warploom.functional import loss, over_tasks
from warploom.models.configs.conv4 import WarpConv4Config
from warploom.models.conv4 import build_warp_conv4
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.tasks.glyphs import Glyphs

STEPS, TASKS, BATCH, LR = 50, 5, 20, 0.1


class PlainNet(nn.Module):
    """Four blocks of convolution, pooling, batch normalisation, activation, warp convolution; then a linear head."""

    def __init__(self, filters: int = 64) -> None:
        super().__init__()
        widths = [1, *[filters] * 4]
        self.conv = nn.ModuleList(nn.Conv2d(a, filters, 3, padding=1) for a in widths[:4])
        self.norm = nn.ModuleList(nn.BatchNorm2d(filters) for _ in range(4))
        self.warp = nn.ModuleList(nn.Conv2d(filters, filters, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(filters, 20)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, warp in zip(self.conv, self.norm, self.warp, strict=True):
            x = warp(torch.relu(norm(nn.functional.max_pool2d(conv(x), 2))))
        logits: Tensor = self.head(x.flatten(1))
        return logits


def plain(x: Tensor, y: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """Inner step and meta-gradient of the plain loop."""
    net, criterion = PlainNet(), nn.CrossEntropyLoss()
    params = dict(net.named_parameters())
    warps = [name for name in params if name.startswith("warp")]
    own = [name for name in params if name not in warps]
    optimiser = torch.optim.SGD([params[name] for name in own], lr=1e-4)

    def inner() -> object:
        for name in warps:
            params[name].requires_grad_(False)
        stored = {name: value.detach().clone() for name, value in net.state_dict().items()}
        criterion(net(x), y).backward()
        optimiser.step()
        optimiser.zero_grad()
        for name in warps:
            params[name].requires_grad_(True)
        return stored

    def meta() -> object:
        first = criterion(net(x), y)
        slopes = torch.autograd.grad(first, [params[name] for name in own], create_graph=True)
        after = {name: params[name] - LR * slope for name, slope in zip(own, slopes, strict=True)}
        outer = criterion(functional_call(net, after, (x,)), y)
        return torch.autograd.grad(outer, [params[name] for name in warps])

    return inner, meta


def ours(x: Tensor, y: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """Inner step and meta-gradient as `warpgrad` computes them."""
    task = OmniglotConfig()
    algorithm = WarpGrad(WarpGradConfig(inner_lr=LR), build_warp_conv4(WarpConv4Config(), task), Glyphs(GlyphsConfig()))
    meta = algorithm.init(0)
    phi, rest = algorithm.split(meta.params)
    theta = {name: value[None] for name, value in rest.items()}
    gradient = partial(algorithm.objective(meta).gradient, phi)

    def inner() -> object:
        step = grad_and_value(lambda own, a, b: loss(algorithm.model, {**phi, **own}, a, b))
        return over_tasks(step, theta, x[None], y[None], vectorise=False)

    def meta_gradient() -> object:
        return over_tasks(gradient, theta, {}, x[None], y[None], x[None], y[None], vectorise=False)

    return inner, meta_gradient


def main(repeats: int) -> None:
    """Time all four pieces in turn and print what a round of 250 steps and 250 points comes to."""
    torch.set_num_threads(1)
    x, y = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 20, (BATCH,))
    pieces = dict(zip(("plain inner", "plain meta", "our inner", "our meta"), [*plain(x, y), *ours(x, y)], strict=True))
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for i in range(repeats + 2):
        for name, piece in pieces.items():
            start = time.perf_counter()
            piece()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    middle = {name: median(values) for name, values in times.items()}
    rounds = {who: STEPS * TASKS * (middle[f"{who} inner"] + middle[f"{who} meta"]) for who in ("plain", "our")}
    result = {
        "milliseconds": {name: round(1e3 * value, 1) for name, value in middle.items()},
        "fastest_milliseconds": {name: round(1e3 * min(values), 1) for name, values in times.items()},
        "seconds_a_round_on_one_core": {who: round(value, 1) for who, value in rounds.items()},
        "ratio": round(rounds["our"] / rounds["plain"], 3),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
