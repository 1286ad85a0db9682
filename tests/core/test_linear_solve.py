"""Conjugate gradients, the Neumann series and Newton steps, against dense algebra and by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from warploom.algorithms.linear_solve import conjugate_gradient, dot, hessian, neumann
from warploom.algorithms.newton import newton_step
from warploom.algorithms.proximal import Proximal
from warploom.functional import over_tasks


def system(seed, spread=100.0, size=6):
    """A symmetric matrix with eigenvalues from 1 to `spread`, and a right-hand side in two tensors."""
    gen = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=gen, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.logspace(0, 1, size, base=spread, dtype=torch.float64)) @ basis.mT
    return matrix, cut(torch.randn(size, generator=gen, dtype=torch.float64))


def cut(vector):
    return {"a": vector[:4].view(2, 2), "b": vector[4:]}


def whole(values):
    return torch.cat([values["a"].flatten(), values["b"]])


def product(matrix):
    return lambda v: cut(matrix @ whole(v))


def test_as_many_steps_as_unknowns_solve_it():
    matrix, b = system(0)
    x, residual = conjugate_gradient(product(matrix), b, steps=6)
    torch.testing.assert_close(whole(x), torch.linalg.solve(matrix, whole(b)), rtol=1e-9, atol=1e-11)
    assert float(residual) < 1e-9


def test_the_error_falls_with_every_step_from_the_identity_on():
    matrix, b = system(1)
    solution = torch.linalg.solve(matrix, whole(b))
    errors = []
    for steps in range(7):
        x, residual = conjugate_gradient(product(matrix), b, steps=steps)
        e = whole(x) - solution
        errors.append(float(e @ matrix @ e))
        if steps:
            left = whole(b) - matrix @ whole(x)
            assert float(residual) == pytest.approx(float(left.norm() / whole(b).norm()), rel=1e-6, abs=1e-12)
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert torch.equal(whole(conjugate_gradient(product(matrix), b, steps=0)[0]), whole(b))


def test_each_task_stops_on_its_own_and_vectorised_equals_the_loop():
    drawn = [system(seed, spread) for seed, spread in enumerate((1.0001, 10.0, 1e4))]
    matrices = torch.stack([matrix for matrix, _ in drawn])
    rhs = torch.stack([whole(b) for _, b in drawn])
    products = []

    def one(matrix, b):
        def apply(v):
            products.append(1)
            return product(matrix)(v)

        x, residual = conjugate_gradient(apply, cut(b), steps=5, tolerance=1e-2)
        return whole(x), residual

    together, loop = (over_tasks(one, matrices, rhs, vectorise=v) for v in (True, False))
    assert len(products) < 5 + 15, "a task by itself stops early"
    torch.testing.assert_close(together, loop, rtol=1e-10, atol=1e-12)
    assert float(together[1][0]) < 1e-2
    x0 = conjugate_gradient(product(matrices[0]), cut(rhs[0]), steps=1)[0]
    torch.testing.assert_close(together[0][0], whole(x0), rtol=1e-12, atol=0)


def test_negative_curvature_stops_at_the_point_before():
    """A = diag(1, −1). From b = (2, 1): ⟨p, A p⟩ = 3, x = 5/3 b; the next direction is (20/9, 40/9), downhill."""
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))

    def apply(v):
        return {"w": matrix @ v["w"]}

    x, _ = conjugate_gradient(apply, {"w": torch.tensor([2.0, 1.0], dtype=torch.float64)}, steps=5)
    torch.testing.assert_close(x["w"], torch.tensor([10 / 3, 5 / 3], dtype=torch.float64))
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.equal(conjugate_gradient(apply, {"w": b}, steps=5)[0]["w"], b)


def test_nothing_to_solve_and_no_numbers():
    matrix, b = system(2)
    x, residual = conjugate_gradient(product(matrix), cut(0 * whole(b)), steps=3)
    assert float(whole(x).abs().max()) == float(residual) == 0.0
    x, residual = conjugate_gradient(product(matrix * float("nan")), b, steps=3)
    assert bool(whole(x).isnan().all())


def test_neumann_is_its_partial_sum_and_tends_to_the_inverse():
    matrix, b = system(3, spread=5.0)
    size = 0.15
    shrink = torch.eye(6, dtype=torch.float64) - size * matrix
    for steps in (0, 1, 4):
        expected = size * sum(torch.linalg.matrix_power(shrink, j) for j in range(steps + 1)) @ whole(b)
        x, last = neumann(product(matrix), b, steps=steps, size=size)
        torch.testing.assert_close(whole(x), expected)
        term = torch.linalg.matrix_power(shrink, steps) @ whole(b)
        assert float(last) == pytest.approx(float(term.norm() / whole(b).norm()))
    x, last = neumann(product(matrix), b, steps=300, size=size)
    torch.testing.assert_close(whole(x), torch.linalg.solve(matrix, whole(b)), rtol=1e-9, atol=1e-11)
    assert float(last) < 1e-9


def test_the_hessian_is_that_of_torch():
    point, v = {"a": torch.tensor([0.3, -0.7]).double()}, {"a": torch.tensor([1.1, 0.4]).double()}

    def loss(p):
        return (p["a"].sin() * p["a"].flip(0).exp()).sum()

    value, slope, times = hessian(loss, point)
    assert float(value) == float(loss(point))
    torch.testing.assert_close(slope, torch.func.grad(loss)(point))
    torch.testing.assert_close(times(v)["a"], torch.func.jacrev(torch.func.grad(loss))(point)["a"]["a"] @ v["a"])


def test_the_line_search_halves_until_it_is_lower():
    """√(1 + x²) at 2: the Newton step is −10, and only a quarter of it lowers the loss: 2 − 10/4."""
    free = Proximal({"x": 0.0}, {"x": torch.zeros(1).double()})
    at = {"x": torch.tensor([2.0]).double()}

    def loss(p):
        return (1 + p["x"] ** 2).sqrt().sum()

    moved, slope, value = newton_step(loss, free, at, torch.tensor(1.0).double(), cg_steps=3)
    assert float(moved["x"]) == pytest.approx(-0.5)
    assert float(slope["x"]) == pytest.approx(2 / 5**0.5)
    assert float(value) == pytest.approx(5**0.5)
    moved, _, _ = newton_step(lambda p: -loss(p) * 0 + 1.0, free, at, torch.tensor(1.0).double(), cg_steps=3)
    assert float(moved["x"]) == 2.0, "without a slope it stays"


def test_a_newton_step_solves_a_quadratic_with_its_proximal_term():
    matrix, b = system(4, spread=20.0)
    near = Proximal({"a": 3.0, "b": 0.5}, cut(torch.arange(6.0).double()))

    def loss(p):
        return 0.5 * whole(p) @ matrix @ whole(p) - dot(b, p)

    moved, _, _ = newton_step(loss, near, cut(torch.ones(6).double()), torch.tensor(1.0).double(), cg_steps=6)
    weight = torch.tensor([3.0] * 4 + [0.5] * 2).double()
    best = torch.linalg.solve(matrix + torch.diag(weight), whole(b) + weight * torch.arange(6.0).double())
    torch.testing.assert_close(whole(moved), best, rtol=1e-7, atol=1e-8)
