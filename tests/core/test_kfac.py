"""Natural gradients: closed forms for one layer, factors by hand for two, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.support.unrolled import NETS, assert_same, on, some_tasks
from warploom.algorithms.configs.none import NoMetaConfig
from warploom.algorithms.none import NoMeta
from warploom.errors import InvalidInput
from warploom.functional import batch_stats, forward
from warploom.optim.configs import KFACConfig
from warploom.optim.kfac import natural_gradient
from warploom.spec import JobSpec


def kfac(net, *, steps=1, lr=1.0, **rule):
    config = NoMetaConfig(inner_steps=steps, inner_lr=lr, preconditioner={"name": "kfac", **rule})
    return on(NoMeta, config, net)


def test_one_step_on_a_hidden_layer_is_the_kronecker_product_by_hand():
    algorithm, meta = kfac("mlp", damping=0.3)
    tasks = some_tasks(algorithm)
    x, y = tasks.support_x[0], tasks.support_y[0]
    params = {name: value.clone().requires_grad_() for name, value in meta.params.items()}
    outputs = forward(algorithm.model, params, x)
    gradient = dict(zip(params, torch.autograd.grad(F.mse_loss(outputs, y), list(params.values())), strict=True))
    found = natural_gradient(algorithm.model, KFACConfig(damping=0.3), params, gradient, x, y, {})

    h = x
    for layer in ("layer0", "layer1"):
        weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
        before = F.linear(h, weight, bias).detach().requires_grad_()
        a_BI = torch.cat([h, torch.ones_like(h[:, :1])], 1).detach()
        rest = before.tanh()
        if layer == "layer0":
            rest = F.linear(rest, params["layer1.weight"], params["layer1.bias"]).tanh()
        out_BO = F.linear(rest, params["head.weight"], params["head.bias"])
        # The curvature of the mean squared error over B examples of O values is 2/O per example and value.
        G = sum(
            torch.einsum("bi,bj->ij", g, g)
            for o in range(y.shape[1])
            for g in [torch.autograd.grad(out_BO[:, o].sum(), before, retain_graph=True)[0]]
        ) * (2 / (y.shape[1] * len(x)))
        A = a_BI.T @ a_BI / len(x)
        ridge = lambda M: torch.linalg.inv(M + 0.3 * torch.eye(len(M), dtype=M.dtype))  # noqa: E731
        joint = torch.cat([gradient[f"{layer}.weight"], gradient[f"{layer}.bias"][:, None]], 1)
        by_hand = ridge(G) @ joint @ ridge(A)
        torch.testing.assert_close(found[f"{layer}.weight"], by_hand[:, :-1], rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(found[f"{layer}.bias"], by_hand[:, -1], rtol=1e-8, atol=1e-12)
        h = before.tanh()


def test_one_whole_step_on_the_head_alone_solves_its_linear_regression():
    algorithm, meta = kfac("mlp")
    tasks = some_tasks(algorithm)
    x, y = tasks.support_x[0], tasks.support_y[0]
    head = {name: meta.params[name].clone().requires_grad_() for name in ("head.weight", "head.bias")}
    value = F.mse_loss(forward(algorithm.model, {**meta.params, **head}, x), y)
    gradient = dict(zip(head, torch.autograd.grad(value, list(head.values())), strict=True))
    found = natural_gradient(algorithm.model, KFACConfig(damping=1e-12), meta.params, gradient, x, y, {})
    moved = {**meta.params, **{name: head[name].detach() - found[name] for name in head}}
    features = x
    for layer in ("layer0", "layer1"):
        features = F.linear(features, meta.params[f"{layer}.weight"], meta.params[f"{layer}.bias"]).tanh()
    design = torch.cat([features, torch.ones_like(x[:, :1])], 1)
    best = design @ torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(forward(algorithm.model, moved, x), best, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("curvature", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("net", ["conv, norms by task", "conv, running", "warp conv"])
def test_convolutional_nets_adapt_and_repeat_to_the_bit(net, curvature):
    algorithm, meta = kfac(net, steps=4, lr=0.1, damping=0.1, curvature=curvature)
    tasks = some_tasks(algorithm, 2)
    adapted = algorithm.adapt(meta, tasks, seeds=[0, 1])
    again = algorithm.adapt(meta, tasks, seeds=[0, 1])
    assert_same(adapted.params, again.params, rtol=0, atol=0)
    assert (adapted.losses_TK[:, -1] < adapted.losses_TK[:, 0]).all()
    plain, _ = on(NoMeta, NoMetaConfig(inner_steps=4, inner_lr=0.1), net)
    assert not torch.equal(adapted.losses_TK, plain.adapt(meta, tasks, seeds=[0, 1]).losses_TK)


def test_what_is_no_layer_keeps_its_plain_gradient():
    algorithm, meta = kfac("conv, norms by task")
    tasks = some_tasks(algorithm)
    gradient = {name: torch.randn_like(value) for name, value in meta.params.items()}
    x, y = tasks.support_x[0], tasks.support_y[0]
    stats = batch_stats(algorithm.model, meta.params, x)
    found = natural_gradient(algorithm.model, KFACConfig(), meta.params, gradient, x, y, stats)
    same = {name for name in gradient if torch.equal(found[name], gradient[name])}
    assert same == {name for name in gradient if name.startswith("norm")}
    assert NETS["conv, norms by task"].layers == 2


def test_recurrent_nets_are_refused_with_what_would_fit():
    document = {
        "algorithm": {"name": "none", "preconditioner": {"name": "kfac"}},
        "task": {"name": "maze"},
        "model": {"name": "rnn"},
    }
    with pytest.raises(InvalidInput, match=r"K-FAC.*not 'rnn'.*mlp"):
        JobSpec.parse(document)
