"""The objective of algorithms that learn through windows of the inner loop, by the ordinary autograd."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.support.slopes import check_slope
from tests.support.unrolled import some_tasks


def check_windows(algorithm, meta, *, width, every, seed=4, names=None, rel=2e-6):
    """The rollout's gradient is the slope of the mean query loss, each window going on from where the last one ended.

    What a window starts from (and, first order, each inner gradient) is held at its value under `meta`.
    """
    tasks = some_tasks(algorithm)
    steps = algorithm.config.inner_steps
    counted = [k for k in range(steps) if every or (k + 1) % width == 0 or k == steps - 1]
    _, starts, slopes = _walk(algorithm, meta, tasks, seed, counted, width, None, None)
    fixed = slopes if algorithm.first_order else None

    def objective(values):
        return _walk(algorithm, replace(meta, params=dict(values)), tasks, seed, counted, width, starts, fixed)[0]

    (experience,) = algorithm.rollout(meta, tasks, seeds=[seed])
    gradient = experience.gradient if names is None else {name: experience.gradient[name] for name in names}
    check_slope(objective, meta.params, gradient, h=1e-7, rel=rel, absolute=2e-8)


def _walk(algorithm, meta, tasks, seed, counted, width, starts, slopes):
    """The mean query loss after the counted steps, the states at which windows begin, and the gradients."""
    batches = algorithm._batches(tasks, [seed])
    stats = algorithm.given_stats(meta)
    rate = torch.tensor(algorithm.config.inner_lr, dtype=torch.float64)
    theta = algorithm.start(meta.params)
    state = algorithm.inner_state(meta.params, theta)
    losses, begun, found = [], [], []
    for k in range(algorithm.config.inner_steps):
        if k % width == 0:
            begun.append((theta, state))
            if k and starts:
                theta, state = starts[k // width]
        x_TB, y_TB = batches.next()
        leaves = {name: value.detach().clone().requires_grad_() for name, value in theta.items()}
        loss = algorithm.support_loss(meta.params, leaves, x_TB[0], y_TB[0], stats)
        own = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        found.append(own)
        gradient = own if slopes is None else slopes[k]
        with torch.no_grad():
            theta, state = algorithm.inner_step(meta.params, k, theta, gradient, state, rate)
            if k in counted:
                x_S, x_Q, y_Q = tasks.support_x[0], tasks.query_x[0], tasks.query_y[0]
                losses.append(float(algorithm.outer_loss(meta.params, theta, x_S, x_Q, y_Q, stats)))
    return sum(losses) / len(losses), begun, found
