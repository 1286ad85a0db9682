"""Tasks side by side: the same numbers as one after the other, and nothing of one thread leaks into another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch.func import grad

from warploom.functional import batch_stats, loss, over_tasks
from warploom.models.configs.conv4 import Conv4Config
from warploom.models.conv4 import build_conv4
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.threads import side_by_side, use_threads


@pytest.fixture
def cores() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(3)
    yield
    use_threads(1)
    torch.set_num_threads(before)


def test_gradients_and_statistics_are_bitwise_those_of_one_core(cores: None) -> None:
    model = build_conv4(Conv4Config(filters=4), GlyphsConfig())
    params = model.initial(0)
    gen = torch.Generator().manual_seed(1)
    params_T = {name: value + 0.1 * torch.randn(7, *value.shape, generator=gen) for name, value in params.items()}
    x_TB = torch.randn(7, 6, *GlyphsConfig().input_shape, generator=gen)
    y_TB = torch.randint(0, 5, (7, 6), generator=gen)
    slope = grad(lambda own, x, y: loss(model, own, x, y))
    pooled = over_tasks(slope, params_T, x_TB, y_TB, vectorise=False)
    pooled_stats = over_tasks(partial(batch_stats, model), params_T, x_TB, vectorise=False)
    use_threads(1)
    alone = over_tasks(slope, params_T, x_TB, y_TB, vectorise=False)
    alone_stats = over_tasks(partial(batch_stats, model), params_T, x_TB, vectorise=False)
    assert all(torch.equal(pooled[name], alone[name]) for name in alone)
    assert all(torch.equal(pooled_stats[name], alone_stats[name]) for name in alone_stats)


def test_order_is_kept_and_no_grad_reaches_the_pool(cores: None) -> None:
    weight = torch.ones(1, requires_grad=True)
    with torch.no_grad():
        found = side_by_side([lambda i=i: weight * i for i in range(9)])  # type: ignore[misc]
    assert [float(value) for value in found] == list(range(9))
    assert not any(value.requires_grad for value in found)
    assert all(value.requires_grad for value in side_by_side([lambda: weight * 2] * 4))


def test_a_call_in_the_pool_may_itself_go_over_tasks(cores: None) -> None:
    def outer() -> float:
        return sum(side_by_side([lambda: 1.0] * 4))

    assert side_by_side([outer] * 8) == [4.0] * 8


def test_a_transform_keeps_its_calls_in_its_own_thread(cores: None) -> None:
    def total(w: torch.Tensor) -> torch.Tensor:
        parts = over_tasks(lambda a: w * a, torch.arange(4.0), vectorise=False)
        return parts.square().sum()

    assert float(grad(total)(torch.tensor(2.0))) == 2 * 2.0 * (0 + 1 + 4 + 9)


def test_an_error_in_one_call_comes_out(cores: None) -> None:
    def bad() -> float:
        raise ValueError("third task")

    with pytest.raises(ValueError, match="third task"):
        side_by_side([lambda: 1.0, lambda: 2.0, bad])
