"""Families with finitely many training tasks say which one a ref is about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.configs.omniglot import OmniglotConfig
from warploom.tasks.configs.sinusoid import SinusoidConfig
from warploom.tasks.glyphs import Glyphs
from warploom.tasks.omniglot import Omniglot
from warploom.tasks.sinusoid import Sinusoid
from warploom.types import TaskRef


def check_epochs(family: TaskFamily, count: int) -> None:
    """Each run of `count` refs is all tasks once, and other streams have the same numbers for the same tasks."""
    assert family.size("train") == count
    assert family.config.finite
    for seed, epoch in ((0, 0), (0, 3), (9, 1)):
        run = [TaskRef("train", epoch * count + i, seed) for i in range(count)]
        assert sorted(family.identity(ref) for ref in run) == list(range(count))


def test_glyphs() -> None:
    family = Glyphs(GlyphsConfig(alphabets=5))
    check_epochs(family, 5)
    refs = [TaskRef("train", i, seed) for i in range(5) for seed in (0, 1)]
    seeds: dict[int | None, set[int]] = {}
    for ref in refs:
        seeds.setdefault(family.identity(ref), set()).add(family.alphabet_seed(ref))
    assert [len(found) for found in seeds.values()] == [1] * 5
    assert family.identity(TaskRef("test", 0, 0)) is None


def test_omniglot(tiny_omniglot: Path) -> None:
    fields = {"ways": 6, "shots": 3, "queries": 2, "train_alphabets": 4, "test_alphabets": 3, "augment": False}
    family = Omniglot(OmniglotConfig.model_validate(fields))
    check_epochs(family, 4)
    by_number: dict[int | None, list[torch.Tensor]] = {}
    for ref in [TaskRef("train", i, seed) for i in range(4) for seed in (0, 1)]:
        by_number.setdefault(family.identity(ref), []).append(family.sample([ref]).query_x[0])
    for one, other in by_number.values():  # all six characters of an alphabet, in two orders
        assert sorted(map(_pixels, one)) == sorted(map(_pixels, other))
    assert family.identity(TaskRef("test", 1, 0)) in range(3)


def test_omniglot_few_shot_has_no_numbers(tiny_omniglot: Path) -> None:
    family = Omniglot(OmniglotConfig.model_validate({"protocol": "few-shot", "ways": 4, "shots": 1, "queries": 1}))
    assert family.identity(TaskRef("train", 0, 0)) is None
    assert not family.config.finite


@pytest.mark.parametrize("split", ["train", "test"])
def test_endless_families_have_none(split: str) -> None:
    family = Sinusoid(SinusoidConfig())
    assert family.identity(TaskRef(split, 0, 0)) is None  # type: ignore[arg-type]
    assert not family.config.finite


def _pixels(image: torch.Tensor) -> bytes:
    return (image * 255).round().to(torch.uint8).numpy().tobytes()
