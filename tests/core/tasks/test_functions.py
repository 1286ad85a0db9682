"""`cosmixture` and `alpine`: values by hand, ranges, standardisation, finitely many functions."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from tests.support.tasks import check_function_of_the_ref, make
from warploom.seeding import generator
from warploom.tasks.configs.functions import AlpineConfig, CosMixtureConfig
from warploom.tasks.functions import Alpine, CosMixture
from warploom.types import TaskRef

NAMES = ["cosmixture", "alpine"]


@pytest.mark.parametrize("tasks", [None, 7])
@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_a_function_of_its_ref(name, tasks):
    check_function_of_the_ref({"name": name, "tasks": tasks, "shots": 4, "queries": 3})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_the_config(name):
    family = make({"name": name, "dim": 3, "shots": 4, "queries": 6, "tasks": 5})
    tasks = family.sample([TaskRef("train", i, 0) for i in range(2)])
    assert tasks.support_x.shape == (2, 4, 3)
    assert tasks.query_x.shape == (2, 6, 3)
    assert tasks.support_y.shape == (2, 4, 1)
    assert tasks.query_y.shape == (2, 6, 1)
    assert {t.dtype for t in (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)} == {torch.float32}
    assert (family.config.input_shape, family.config.outputs) == ((3,), 1)


def test_cosmixture_by_hand():
    family = CosMixture(CosMixtureConfig(tasks=1))
    p = torch.tensor([0.3, math.pi, 0.5 * math.pi], dtype=torch.float64)
    x = torch.tensor([[0.5, -1.0], [0.0, 0.25]], dtype=torch.float64)
    # cos(π/2 + π/2) = -1 and cos(-π + π/2) = 0; cos(π/2) = 0 and cos(3π/4) = -√½.
    expected = torch.tensor([0.3 - 1.25, 0.3 * math.sqrt(0.5) - 0.0625], dtype=torch.float64)
    torch.testing.assert_close(family.values(p, x), expected, rtol=1e-12, atol=1e-12)


def test_alpine_by_hand():
    family = Alpine(AlpineConfig(tasks=1))
    p = torch.tensor([0.5 * math.pi, 0.0], dtype=torch.float64)
    x = torch.tensor([[math.pi, -0.5 * math.pi], [0.0, math.pi]], dtype=torch.float64)
    # |π sin(3π/2) + 0.1π| = 0.9π and |-π/2 · -1 - 0.05π| = 0.45π; 0 and 0.1π.
    expected = torch.tensor([1.35 * math.pi, 0.1 * math.pi], dtype=torch.float64)
    torch.testing.assert_close(family.values(p, x), expected, rtol=1e-12, atol=1e-12)


def drawn(family, count=4000):
    return torch.stack([family.draw(generator("here", i)) for i in range(count)])


@pytest.mark.parametrize(
    ("variant", "ranges"),
    [
        ("slides", [(0.01, 0.1), (0.5 * math.pi, 2 * math.pi), (3, 6)]),
        ("code", [(0.1, 1), (3 * math.pi, 6 * math.pi), (0.5, 2)]),
    ],
)
def test_cosmixture_ranges(variant, ranges):
    p = drawn(CosMixture(CosMixtureConfig(variant=variant, tasks=1)))
    for column, (low, high) in zip(p.T, ranges, strict=True):
        span = high - low
        assert low <= column.min() < low + 0.01 * span
        assert high - 0.01 * span < column.max() <= high
        assert abs(column.mean() - (low + high) / 2) < 0.02 * span
    assert abs(torch.corrcoef(p.T) - torch.eye(3)).max() < 0.06


@pytest.mark.parametrize(("variant", "centre"), [("slides", 0.0), ("code", math.pi)])
def test_alpine_shifts(variant, centre):
    p = drawn(Alpine(AlpineConfig(variant=variant, tasks=1))) - centre
    limit = 5 * math.pi / 12
    assert -limit <= p.min() < -0.98 * limit
    assert 0.98 * limit < p.max() <= limit
    assert bool((p[:, 0] == p[:, 1]).all()) == (variant == "code")


@pytest.mark.parametrize("name", NAMES)
def test_with_no_standardisation_the_points_are_those_of_the_function(name):
    family = make({"name": name, "standardise": "none", "tasks": 3, "shots": 400, "queries": 1})
    ref = TaskRef("test", 1, 4)
    tasks = family.sample([ref])
    x = tasks.support_x[0].double()
    p = family._function("test", family.identity(ref))
    torch.testing.assert_close(tasks.support_y[0, :, 0].double(), family.values(p, x), rtol=1e-4, atol=1e-4)
    bound = family.config.x_max
    assert -bound <= x.min() < -0.97 * bound
    assert 0.97 * bound < x.max() <= bound


@pytest.mark.parametrize("name", NAMES)
def test_standardised_training_tasks_have_mean_zero_and_deviation_one(name):
    family = make({"name": name, "tasks": 40, "shots": 500, "queries": 1})
    tasks = family.sample([TaskRef("train", i, 3) for i in range(40)])
    for values in (tasks.support_x, tasks.support_y):
        assert abs(float(values.mean())) < 0.03
        assert abs(float(values.std()) - 1) < 0.03


def test_test_functions_have_no_say_in_the_scale_unless_asked():
    def scale(**options):
        family = Alpine(AlpineConfig(tasks=3, **options))
        return family.y_mean, family.y_std

    class Moved(Alpine):
        def _function(self, split, which):
            return super()._function(split, which) + (1.0 if split == "test" else 0.0)

    for standardise, same in (("train", True), ("all", False)):
        moved = Moved(AlpineConfig(tasks=3, standardise=standardise))
        assert ((moved.y_mean, moved.y_std) == scale(standardise=standardise)) is same


@pytest.mark.parametrize("name", NAMES)
def test_epochs_revisit_the_same_functions_with_other_points(name):
    family = make({"name": name, "tasks": 6, "shots": 3, "queries": 2, "standardise": "none"})
    refs = [TaskRef("train", i, 9) for i in range(12)]
    numbers = [family.identity(ref) for ref in refs]
    assert sorted(numbers[:6]) == sorted(numbers[6:]) == list(range(6))
    tasks = family.sample(refs)
    twice = [i for i, n in enumerate(numbers) if n == 2]
    assert not torch.equal(tasks.support_x[twice[0]], tasks.support_x[twice[1]])
    p = family._function("train", 2)
    for i in twice:
        torch.testing.assert_close(
            tasks.support_y[i, :, 0].double(), family.values(p, tasks.support_x[i].double()), rtol=1e-4, atol=1e-4
        )
    assert family.size("test") == 6
    assert make({"name": name, "tasks": None}).size("test") is None
    assert make({"name": name, "tasks": None}).identity(refs[0]) is None


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_function(name):
    family = make({"name": name, "tasks": 30})
    seen = {tuple(family._function(split, i).tolist()) for split in ("train", "validation", "test") for i in range(30)}
    assert len(seen) == 90


def test_nrmse_is_in_units_of_all_functions():
    y = torch.tensor([[0.0], [4.0]])
    outputs = y + torch.tensor([[3.0], [-3.0]])
    assert make({"name": "alpine", "tasks": 2}).scores(outputs, y) == {"loss": 9.0, "nrmse": 3.0}
    plain = make({"name": "alpine", "tasks": 2, "standardise": "none"}).scores(outputs, y)
    assert plain == {"loss": 9.0, "nrmse": 1.5}


def test_configs_refuse_what_cannot_be():
    with pytest.raises(ValidationError, match="dim"):
        CosMixtureConfig(dim=0)
    with pytest.raises(ValidationError, match="'slides' or 'code'"):
        AlpineConfig(variant="paper")
