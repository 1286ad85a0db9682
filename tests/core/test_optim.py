"""Inner optimisers: torch.optim step by step, hypergradients by finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch.func import grad, vmap

from warploom.errors import InvalidInput
from warploom.optim.base import grown, root
from warploom.optim.build import OPTIMISERS, build_optimiser
from warploom.optim.configs import OPTIMISER_CONFIGS, AnyInnerOptimiser

RULE = TypeAdapter(AnyInnerOptimiser)
# Options, inner_lr, and torch's class with its own spelling of the options.
CASES = {
    "sgd": ({}, 0.1, torch.optim.SGD, {}),
    "sgd momentum": (
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02},
        0.05,
        torch.optim.SGD,
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02},
    ),
    "sgd nesterov": (
        {"momentum": 0.8, "nesterov": True},
        0.05,
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
    "adam": ({}, 0.02, torch.optim.Adam, {}),
    "adam decay": (
        {"beta1": 0.7, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.1},
        0.05,
        torch.optim.Adam,
        {"betas": (0.7, 0.8), "eps": 0.05, "weight_decay": 0.1},
    ),
    "adam amsgrad": (
        {"beta2": 0.6, "eps": 0.01, "amsgrad": True},
        0.03,
        torch.optim.Adam,
        {"betas": (0.9, 0.6), "eps": 0.01, "amsgrad": True},
    ),
    "adamw": ({"eps": 0.03}, 0.02, torch.optim.AdamW, {"eps": 0.03}),
    "adamw amsgrad": (
        {"beta2": 0.5, "eps": 0.02, "weight_decay": 0.5, "amsgrad": True},
        0.04,
        torch.optim.AdamW,
        {"betas": (0.9, 0.5), "eps": 0.02, "weight_decay": 0.5, "amsgrad": True},
    ),
    "amsgrad": (
        {"beta2": 0.5, "eps": 0.02, "weight_decay": 0.1},
        0.04,
        torch.optim.Adam,
        {"betas": (0.9, 0.5), "eps": 0.02, "weight_decay": 0.1, "amsgrad": True},
    ),
    "adamax": ({}, 0.02, torch.optim.Adamax, {}),
    "adamax decay": (
        {"beta1": 0.8, "beta2": 0.6, "eps": 0.04, "weight_decay": 0.1},
        0.05,
        torch.optim.Adamax,
        {"betas": (0.8, 0.6), "eps": 0.04, "weight_decay": 0.1},
    ),
    "adagrad": ({}, 0.1, torch.optim.Adagrad, {}),
    "adagrad options": (
        {"lr_decay": 0.1, "initial_accumulator": 0.2, "eps": 0.05, "weight_decay": 0.1},
        0.2,
        torch.optim.Adagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 0.05, "weight_decay": 0.1},
    ),
    "rmsprop": ({}, 0.01, torch.optim.RMSprop, {}),
    "rmsprop centered": (
        {"alpha": 0.7, "centered": True, "eps": 0.05, "weight_decay": 0.1},
        0.02,
        torch.optim.RMSprop,
        {"alpha": 0.7, "centered": True, "eps": 0.05, "weight_decay": 0.1},
    ),
    "rmsprop momentum": (
        {"alpha": 0.8, "momentum": 0.6, "eps": 0.05, "centered": True},
        0.02,
        torch.optim.RMSprop,
        {"alpha": 0.8, "momentum": 0.6, "eps": 0.05, "centered": True},
    ),
    "adadelta": ({}, 1.0, torch.optim.Adadelta, {}),
    "adadelta options": (
        {"rho": 0.7, "eps": 0.02, "weight_decay": 0.1},
        0.5,
        torch.optim.Adadelta,
        {"rho": 0.7, "eps": 0.02, "weight_decay": 0.1},
    ),
    "asgd": ({}, 0.1, torch.optim.ASGD, {}),
    "asgd options": (
        {"lambd": 0.3, "alpha": 0.6, "t0": 1.5, "weight_decay": 0.1},
        0.2,
        torch.optim.ASGD,
        {"lambd": 0.3, "alpha": 0.6, "t0": 1.5, "weight_decay": 0.1},
    ),
    "rprop": ({}, 0.01, torch.optim.Rprop, {}),
    "rprop options": (
        {"eta_minus": 0.3, "eta_plus": 1.5, "step_min": 0.004, "step_max": 0.06},
        0.02,
        torch.optim.Rprop,
        {"etas": (0.3, 1.5), "step_sizes": (0.004, 0.06)},
    ),
}
each_case = pytest.mark.parametrize("case", CASES)
each_rule = pytest.mark.parametrize("name", OPTIMISERS)


def make(case):
    options, lr, _, _ = CASES[case]
    rule = build_optimiser(RULE.validate_python({"name": case.split()[0], **options}))
    return rule, {"lr": lr, **rule.settings()}


def tensors(settings):
    """As tensors, but for a momentum of 0, which has no buffer."""
    return {
        name: value if name == "momentum" and not value else torch.tensor(value, dtype=torch.float64)
        for name, value in settings.items()
    }


def draw(seed):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 2, generator=gen, dtype=torch.float64)
    y = torch.randn(6, 1, generator=gen, dtype=torch.float64)
    theta = {
        name: 0.7 * torch.randn(shape, generator=gen, dtype=torch.float64)
        for name, shape in {"w": (3, 2), "b": (3,), "v": (1, 3)}.items()
    }
    return x, y, theta


DATA = [draw(seed) for seed in range(3)]


def data(seed=0):
    return DATA[seed]


def net_loss(theta, x, y):
    return ((torch.tanh(x @ theta["w"].T + theta["b"]) @ theta["v"].T - y) ** 2).mean()


def walk(rule, theta, settings, steps, state=None, seed=0):
    """θ and state after some steps on a changing loss."""
    x, y, _ = data(seed)
    state = rule.init(theta) if state is None else state
    for k in steps:
        gradient = grad(net_loss)(theta, x, y + 0.3 * k)
        theta, state = rule.step(theta, gradient, state, settings)
    return theta, state


def outcome(rule, theta, settings, steps=4):
    x, y, _ = data(1)
    theta, state = walk(rule, theta, settings, range(steps))
    value = net_loss(theta, x, y)
    # ASGD's average moves nothing; its derivatives are seen here alone.
    averages = [v.square().sum() for name, v in state.items() if name.startswith("average/")]
    return value + sum(averages)


def counts(name, value):
    """Whether a setting is a tensor that a few steps depend on."""
    return isinstance(value, torch.Tensor) and not (name == "t0" and value > 100)


def differences(function, at, h=1e-6):
    """Central differences of a scalar function of tensors by name, all coordinates in one call.

    `h`: the step, or one for each name.
    """
    size = sum(value.numel() for value in at.values())
    ways = torch.eye(size, dtype=torch.float64)
    moved, first = {}, 0
    for name, value in at.items():
        step = h[name] if isinstance(h, dict) else h
        way = step * ways[:, first : first + value.numel()].view(size, *value.shape)
        moved[name] = torch.cat([value + way, value - way])
        first += value.numel()
    up, down = vmap(function)(moved).split(size)
    found = (up - down).split([value.numel() for value in at.values()])
    return {
        name: part.view(at[name].shape) / (2 * (h[name] if isinstance(h, dict) else h))
        for name, part in zip(at, found, strict=True)
    }


def close(got, wanted, rtol=2e-6, atol=2e-8):
    assert got.keys() == wanted.keys()
    for name in got:
        torch.testing.assert_close(got[name], wanted[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@each_case
def test_fifty_steps_are_those_of_torch(case):
    _, _, theirs, options = CASES[case]
    rule, settings = make(case)
    x, y, theta = data()
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    standard = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the precision of scalars in torch.optim's own state
    try:
        twin = theirs(list(leaves.values()), lr=settings["lr"], **options)
        state = rule.init(theta)
        for k in range(50):
            theta, state = rule.step(theta, grad(net_loss)(theta, x, y + 0.3 * k % 2), state, settings)
            twin.zero_grad()
            net_loss(leaves, x, y + 0.3 * k % 2).backward()
            twin.step()
            for name, leaf in leaves.items():
                torch.testing.assert_close(theta[name], leaf.detach(), rtol=1e-9, atol=1e-11)
    finally:
        torch.set_default_dtype(standard)
    for name, leaf in leaves.items():
        if case.startswith("asgd"):
            torch.testing.assert_close(state[f"average/{name}"], twin.state[leaf]["ax"], rtol=1e-9, atol=1e-11)


@each_case
def test_derivatives_with_respect_to_every_setting_are_those_of_finite_differences(case):
    rule, settings = make(case)
    settings, theta = tensors(settings), data()[2]
    live = {name: value for name, value in settings.items() if counts(name, value)}
    assert "lr" in live

    def function(own):
        return outcome(rule, theta, {**settings, **own})

    small = {name: 1e-6 * min(1.0, max(float(value), 1e-3)) for name, value in live.items()}
    close(grad(function)(live), differences(function, live, small), rtol=2e-5, atol=2e-7)


@each_case
def test_settings_of_each_parameter_have_derivatives_too(case):
    rule, settings = make(case)
    settings, theta = tensors(settings), data()[2]
    gen = torch.Generator().manual_seed(4)
    live = {}
    for name, value in settings.items():
        if counts(name, value) and value > 1e-4:
            for n, v in theta.items():
                wide = 0.9 + 0.1 * torch.rand(v.shape, generator=gen, dtype=v.dtype)
                live[f"{name} {n}"] = value if name == "t0" else value * wide  # of one value for a whole parameter too

    def function(own):
        spread = {key.split()[0]: {n: own[f"{key.split()[0]} {n}"] for n in theta} for key in own}
        return outcome(rule, theta, {**settings, **spread}, 3)

    small = {key: 1e-6 * float(value.mean().clamp(0.01, 1)) for key, value in live.items()}
    close(grad(function)(live), differences(function, live, small), rtol=2e-5, atol=2e-7)


@each_case
def test_derivatives_with_respect_to_the_start_are_those_of_finite_differences(case):
    rule, settings = make(case)
    function = lambda own: outcome(rule, own, settings)  # noqa: E731
    close(grad(function)(data()[2]), differences(function, data()[2]))


@each_case
def test_derivatives_nest(case):
    rule, settings = make(case)
    settings, theta = tensors(settings), data()[2]
    slope = grad(lambda lr: outcome(rule, theta, {**settings, "lr": lr}, 3))
    wanted = differences(lambda own: slope(own["lr"]), {"lr": settings["lr"]}, 1e-5 * float(settings["lr"]))
    close({"lr": grad(slope)(settings["lr"])}, wanted, rtol=1e-4, atol=1e-6)


@each_case
def test_going_on_from_a_state_equals_going_through(case, tmp_path):
    rule, settings = make(case)
    _, _, theta = data()
    through, last = walk(rule, theta, settings, range(9))
    half, state = walk(rule, theta, settings, range(4))
    torch.save((half, state), tmp_path / "state.pt")
    half, state = torch.load(tmp_path / "state.pt")
    resumed, again = walk(make(case)[0], half, settings, range(4, 9), state)
    assert all(torch.equal(through[name], resumed[name]) for name in theta)
    assert last.keys() == again.keys() == state.keys()
    assert all(torch.equal(last[name], again[name]) for name in last)
    assert all(name == "step" or name.partition("/")[2] in theta for name in last)


@each_case
def test_many_at_once_equal_one_by_one(case):
    rule, settings = make(case)
    starts = [data(seed)[2] for seed in range(3)]
    together = vmap(lambda theta: walk(rule, theta, settings, range(5))[0])(
        {name: torch.stack([s[name] for s in starts]) for name in starts[0]}
    )
    for t, start in enumerate(starts):
        alone = walk(rule, start, settings, range(5))[0]
        for name in alone:
            torch.testing.assert_close(together[name][t], alone[name], rtol=1e-10, atol=1e-12)


@each_rule
def test_a_gradient_of_exactly_zero_leaves_derivatives_finite(name):
    """One coordinate that never counts, and one at the bottom of its bowl."""
    eps = {"eps": 0.1} if "eps" in OPTIMISER_CONFIGS[name].model_fields else {}
    extra = {"centered": True} if name == "rmsprop" else {}
    for options in ({}, eps, {**eps, **extra}):
        rule = build_optimiser(RULE.validate_python({"name": name, **options}))
        settings = tensors({"lr": 0.1, **rule.settings()})

        def bowl(w):
            return (torch.tensor([0.0, 2.0, 3.0]) * w["w"] ** 2).sum()

        def after(theta, settings, rule=rule):
            state = rule.init(theta)
            for _ in range(3):
                theta, state = rule.step(theta, grad(bowl)(theta), state, settings)
            return (theta["w"] * torch.tensor([1.0, 2.0, 3.0])).sum() + theta["w"].square().sum()

        start = {"w": torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)}
        live = {key: value for key, value in settings.items() if isinstance(value, torch.Tensor)}
        by_start, by_setting = grad(lambda w, own, s=settings: after(w, {**s, **own}), argnums=(0, 1))(start, live)
        assert bool(by_start["w"].isfinite().all())
        assert all(bool(v.isfinite().all()) for v in by_setting.values())
        if options and rule.differentiable_in_gradient:
            wanted = differences(lambda w, after=after, s=settings: after(w, s), start, 1e-7)
            close(by_start, wanted, rtol=1e-4, atol=1e-6)


def test_the_first_step_of_adam_at_the_bottom_of_a_bowl():
    """θ − α g / (|g| + ε) with g = c θ has slope 1 − α c / ε at 0."""
    rule = build_optimiser(RULE.validate_python({"name": "adam", "eps": 0.5}))
    theta = torch.zeros(1, dtype=torch.float64)

    def moved(w):
        return rule.step({"w": w}, {"w": 3 * w}, rule.init({"w": w}), {"lr": 0.2, **rule.settings()})[0]["w"].sum()

    torch.testing.assert_close(grad(moved)(theta), torch.full_like(theta, 1 - 0.2 * 3 / 0.5))


@pytest.mark.parametrize("order", [1, 2])
def test_the_root_is_safe_at_zero_and_exact_elsewhere(order):
    slope = torch.sqrt
    ours = root
    for _ in range(order):
        slope, ours = grad(slope), grad(ours)
    at = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(ours(at), slope(at))
    assert ours(torch.tensor(0.0)).item() == 0
    assert root(torch.tensor(-1e-20)).item() == 0


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.999, 0.9999])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_bias_corrections_hold_in_single_precision(beta, kind):
    for t in (1.0, 2.0, 50.0):
        exact_beta = float(torch.tensor(beta)) if kind is torch.tensor else beta  # what single precision keeps of it
        got = grown(kind(beta), torch.tensor(t))
        assert got.dtype == torch.float32
        assert float(got) == pytest.approx(1 - exact_beta**t, rel=1e-6)


def test_a_beta_of_zero_has_a_derivative():
    slope = grad(lambda beta: grown(beta, torch.tensor(1.0)))
    assert slope(torch.tensor(0.0)).item() == -1


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_that_has_no_buffer_is_refused(name):
    rule = build_optimiser(RULE.validate_python(name))
    theta = data()[2]
    with pytest.raises(InvalidInput, match="momentum above 0"):
        rule.step(theta, theta, rule.init(theta), {"lr": 0.1, **rule.settings(), "momentum": torch.tensor(0.9)})
