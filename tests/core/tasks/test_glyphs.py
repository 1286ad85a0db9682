from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from warploom.seeding import generator
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.glyphs import CONTROLS, STROKES, Glyphs, assign_hands, draw, make_alphabet, render
from warploom.types import Split, TaskRef, Tasks


def plain(**fields: int) -> Glyphs:
    return Glyphs(GlyphsConfig.model_validate({"augment": False, **fields}))


def refs(split: Split, count: int, seed: int = 3) -> list[TaskRef]:
    return [TaskRef(split, i, seed) for i in range(count)]


def nearest_mean_accuracy(tasks: Tasks, ways: int, shots: int) -> float:
    means = tasks.support_x.view(tasks.count, ways, shots, -1).mean(2)
    nearest = torch.cdist(tasks.query_x.flatten(2), means).argmin(-1)
    return float((nearest == tasks.query_y).float().mean())


def test_an_epoch_visits_every_train_alphabet_once() -> None:
    family = plain(alphabets=25)
    seeds = [family.alphabet_seed(ref) for ref in refs("train", 75)]
    assert [len(set(seeds[i : i + 25])) for i in (0, 25, 50)] == [25, 25, 25]
    assert len(set(seeds)) == family.size("train") == 25
    assert seeds[:25] != seeds[25:50]
    assert family.size("test") is family.size("validation") is None


def test_splits_and_worlds_share_no_alphabet() -> None:
    families = plain(alphabets=500), plain(alphabets=500, world_seed=1)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    seeds = [{f.alphabet_seed(ref) for ref in refs(split, 500)} for f in families for split in splits]
    assert sum(map(len, seeds)) == len(set().union(*seeds)) == 3000


@pytest.mark.parametrize(("shots", "queries", "hands"), [(15, 5, 20), (1, 1, 2), (9, 1, 3), (1, 9, 3), (40, 20, 6)])
def test_queries_are_written_by_other_hands(shots: int, queries: int, hands: int) -> None:
    hands_D = assign_hands(GlyphsConfig(shots=shots, queries=queries, hands=hands), generator(1))
    support, query = set(hands_D[:shots].tolist()), set(hands_D[shots:].tolist())
    assert len(hands_D) == shots + queries
    assert not support & query
    assert max(support | query) < hands
    if shots + queries == hands:
        assert len(support) + len(query) == hands


def test_no_drawing_occurs_twice() -> None:
    tasks = plain(ways=5, shots=9, queries=6, hands=3).sample(refs("test", 2))
    images = [image.numpy().tobytes() for x in (tasks.support_x, tasks.query_x) for image in x.flatten(0, 1)]
    assert len(set(images)) == len(images) == 2 * 5 * 15


def test_characters_of_an_alphabet_differ_and_are_never_empty() -> None:
    for seed in range(5):
        alphabet = make_alphabet(seed, 30, 3)
        broad_A = render(alphabet.controls_ASK2, alphabet.mask_AS, torch.full((30,), 0.07), 14).flatten(1)
        unit_A = broad_A / broad_A.norm(dim=1, keepdim=True)
        assert (unit_A @ unit_A.T).fill_diagonal_(0).max() < 0.85  # taken as they come, some reach 0.87 to 0.97
        drawn_A = draw(alphabet, torch.arange(30), torch.arange(1), generator(2), 28)[:, 0]
        assert (drawn_A.sum(dim=(1, 2)) > 8).all()


def test_a_task_may_use_more_characters_than_an_alphabet_usually_has() -> None:
    tasks = plain(ways=40, shots=1, queries=1).sample(refs("train", 1))
    assert len({image.numpy().tobytes() for image in tasks.support_x[0]}) == 40


def test_ink_is_inside_and_looks_like_ink() -> None:
    x_B = plain().sample(refs("test", 4)).support_x.flatten(0, 1)[:, 0]
    inside = x_B[:, 1:-1, 1:-1].sum()
    assert inside / x_B.sum() > 0.995
    assert 0.02 < x_B.mean() < 0.2
    assert (x_B.amax(dim=(1, 2)) > 0.9).float().mean() > 0.95
    assert ((x_B > 0.05) & (x_B < 0.95)).float().mean() > 0.02  # anti-aliased


def test_drawings_by_one_hand_are_closer_than_by_two() -> None:
    alphabet = make_alphabet(5, 26, 8)
    hands = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    x_CDP = draw(alphabet, torch.arange(26), hands, generator(6), 28).flatten(2)
    x_CDP = x_CDP / x_CDP.norm(dim=-1, keepdim=True)
    same = (x_CDP[:, 0] * x_CDP[:, 1]).sum(-1).mean()
    other = (x_CDP[:, :1] * x_CDP[:, 2:]).sum(-1).mean()
    assert same > other + 0.05


def test_ten_ways_are_neither_easy_nor_hopeless() -> None:
    accuracy = nearest_mean_accuracy(plain(ways=10, shots=5, queries=5).sample(refs("test", 12)), 10, 5)
    assert 0.5 < accuracy < 0.9


def test_image_size_changes_the_grid_only() -> None:
    small, large = (plain(ways=5, shots=2, image_size=size).sample(refs("train", 2)).support_x for size in (28, 56))
    pooled = torch.nn.functional.avg_pool2d(large[0], 2)
    assert (pooled - small[0]).abs().mean() < 0.01


def test_queries_are_mapped_only_if_the_config_says_so() -> None:
    settings: tuple[dict[str, bool], ...] = ({"augment": False}, {"augment_query": False}, {})
    off, kept, moved = (Glyphs(GlyphsConfig.model_validate(fields)).sample(refs("test", 1)) for fields in settings)
    assert torch.equal(off.query_x, kept.query_x)
    assert not torch.equal(off.query_x, moved.query_x)
    assert torch.equal(off.support_x, moved.support_x)


def test_augmentation_keeps_most_of_the_ink_and_the_labels_sense() -> None:
    family = Glyphs(GlyphsConfig())
    x_B = family.sample(refs("train", 1)).support_x[0]
    moved = family.augment(x_B, generator(1))
    assert moved.shape == x_B.shape
    assert 0.85 < moved.sum() / x_B.sum() < 1.15
    assert (moved - x_B).abs().mean() > 0.02


def line(length: float) -> tuple[Tensor, Tensor]:
    controls = torch.zeros(1, STROKES, CONTROLS, 2)
    controls[0, 0, :, 0] = torch.linspace(-length / 2, length / 2, CONTROLS)
    return controls, torch.tensor([[1.0] + [0.0] * (STROKES - 1)])


@pytest.mark.parametrize("size", [28, 64])
def test_a_straight_stroke_is_as_wide_as_the_pen_and_as_long_as_it_is(size: int) -> None:
    controls, mask = line(0.6)
    for pen in (0.03, 0.06):
        image = render(controls, mask, torch.tensor([pen]), size)[0]
        assert math.isclose(float(image[:, size // 2].sum()) / size, 2 * pen, rel_tol=0.01)
        assert 2 * pen * (0.6 - pen) < image.mean() < 2 * pen * (0.6 + pen)
        assert torch.allclose(image, image.flip(0), atol=1 / 255)
        assert torch.allclose(image, image.flip(1), atol=1 / 255)


def test_strokes_that_are_masked_leave_no_ink() -> None:
    controls, mask = line(0.6)
    controls[0, 1:] = torch.rand(STROKES - 1, CONTROLS, 2) - 0.5
    assert torch.equal(render(controls, mask, torch.tensor([0.03]), 28), render(*line(0.6), torch.tensor([0.03]), 28))
    assert render(controls, mask * 0, torch.tensor([0.03]), 28).max() == 0
