"""The outer optimisers against torch's own."""

from __future__ import annotations

import pytest
import torch

from warploom.outer import Outer, OuterState, joint_norm, outer_step


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_fifty_steps_equal_torch(kind):
    gen = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(3, 2, generator=gen, dtype=torch.float64), "b": torch.randn(4, generator=gen).double()}
    theirs = {name: value.clone().requires_grad_() for name, value in start.items()}
    groups = [{"params": [theirs["a"]], "lr": 0.03}, {"params": [theirs["b"]], "lr": 0.2}]
    optimiser = torch.optim.SGD(groups) if kind == "sgd" else torch.optim.Adam(groups)
    ours, state, outer = start, OuterState(), Outer(kind, {"a": 0.03, "b": 0.2})
    for _ in range(50):
        gradient = {name: torch.randn(value.shape, generator=gen).double() for name, value in start.items()}
        for name, value in theirs.items():
            value.grad = gradient[name].clone()
        optimiser.step()
        ours, state = outer_step(outer, state, ours, gradient)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-10, atol=1e-12)


def test_arguments_stay_as_they_were():
    params, gradient = {"w": torch.ones(2)}, {"w": torch.ones(2)}
    state = OuterState()
    new, _ = outer_step(Outer("adam", {"w": 0.1}), state, params, gradient)
    assert torch.equal(params["w"], torch.ones(2))
    assert not torch.equal(new["w"], params["w"])
    assert not state.first


def test_parameters_without_a_rate_do_not_move():
    new, _ = outer_step(Outer("sgd", {"w": 1.0}), OuterState(), {"v": torch.ones(1)}, {"v": torch.ones(1)})
    assert new["v"].item() == 1.0


def test_adam_counts_each_parameter_for_itself():
    outer, state = Outer("adam", {"w": 0.1, "t": 0.1}), OuterState()
    params = {"w": torch.zeros(1), "t": torch.zeros(1)}
    for _ in range(3):
        params, state = outer_step(outer, state, params, {"w": torch.ones(1)})
    params, state = outer_step(outer, state, params, {"t": torch.ones(1)})
    assert state.count == {"w": 3, "t": 1}
    assert params["t"].item() == pytest.approx(-0.1, rel=1e-5)


def test_clipping_scales_the_joint_norm():
    outer = Outer("sgd", {"a": 1.0, "b": 1.0}, clip_norm=1.0)
    new, _ = outer_step(
        outer,
        OuterState(),
        {"a": torch.zeros(1), "b": torch.zeros(1)},
        {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])},
    )
    assert new["a"].item() == pytest.approx(-0.6)
    assert new["b"].item() == pytest.approx(-0.8)
    assert float(joint_norm({"x": torch.tensor([3.0]), "y": torch.tensor([4.0])})) == 5.0
