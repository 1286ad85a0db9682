"""Generated handwriting: alphabets of an unknown script, written by several hands.

An alphabet has a style, and a character is a few strokes. A stroke is a pen path given by how it turns; paths become
control points, which `warploom.tasks.handwriting` bends by a hand and turns into ink.

Shape suffixes: A characters of an alphabet, C characters of a task, D drawings of a character, H hands, S strokes,
K control points, M modes of bending; a last 2 is (x, y), in sides of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from warploom.seeding import derive, generator
from warploom.tasks.affine import augmented
from warploom.tasks.base import TaskFamily
from warploom.tasks.configs.glyphs import GlyphsConfig
from warploom.tasks.data import OneTask, pick_of_epoch, stack
from warploom.tasks.handwriting import CONTROLS, FRAME, MODES, STROKES, Alphabet, draw, render
from warploom.types import Split, TaskRef, Tasks

LETTERS = 26  # an alphabet has as many characters as a task needs, and at least these
LIKENESS = 0.55  # two characters of an alphabet overlap less than this, where there is a choice
CLARITY = 0.85  # strokes of a character hide each other less than this, where there is a choice

Floats = NDArray[np.float64]


class Glyphs(TaskFamily[GlyphsConfig]):
    """A task is one generated alphabet: `ways` of its characters, some hands as support, other hands as queries.

    Train alphabets are numbers 0 to `alphabets` - 1 of the world. Each ref of validation and test has an alphabet of
    its own, from streams that train never touches. Each alphabet has `hands` writers of its own; the ref decides which
    of them write the queries (their share is queries / (shots + queries)), and no drawing occurs twice.

    Args:
        config: see `GlyphsConfig`.

    Example:
        >>> tasks = Glyphs(GlyphsConfig(ways=5, shots=3)).sample([TaskRef("train", 0, seed=1)])
        >>> tuple(tasks.support_x.shape), float(tasks.support_x.max()) <= 1.0
        ((1, 15, 1, 28, 28), True)

    Source: our own generator; made in the likeness of Omniglot (Lake, Salakhutdinov, Tenenbaum, Science 2015).
    Departures: no data of people is in it, so its scripts have no history.
    """

    def size(self, split: Split) -> int | None:
        """`alphabets` for train; None for the others, which have no end."""
        return self.config.alphabets if split == "train" else None

    def identity(self, ref: TaskRef) -> int | None:
        """The number of the train alphabet; None for the other splits."""
        return pick_of_epoch(ref, self.config.alphabets) if ref.split == "train" else None

    def sample(self, refs: Sequence[TaskRef]) -> Tasks:
        """The tasks that `refs` name.

        Args:
            refs: their names; each run of `alphabets` train indices goes once through the train alphabets.

        Returns:
            Tasks with support [T, ways * shots, 1, H, W] and query [T, ways * queries, 1, H, W] in [0, 1], ink 1,
            grouped by class; labels int64.
        """
        return stack(refs, [self._one(ref) for ref in refs])

    def augment(self, x_B: Tensor, generator: Generator) -> Tensor:
        """The batch [B, 1, H, W] under fresh affine maps; as it is when `augment` is off."""
        return augmented(self.config, x_B, generator)

    def alphabet_seed(self, ref: TaskRef) -> int:
        """The seed of the alphabet that `ref` is about."""
        world = self.config.world_seed
        if ref.split == "train":
            return derive("glyphs", world, "train", pick_of_epoch(ref, self.config.alphabets))
        return derive("glyphs", world, ref.split, ref.seed, ref.index)

    def _one(self, ref: TaskRef) -> OneTask:
        config = self.config
        letters = max(LETTERS, config.ways)
        alphabet = make_alphabet(self.alphabet_seed(ref), letters, config.hands)
        chance = generator("glyphs", "task", ref.split, ref.seed, ref.index)
        chosen_C = torch.randperm(letters, generator=chance)[: config.ways]
        hands_D = assign_hands(config, chance)
        x_CDHW = draw(alphabet, chosen_C, hands_D, chance, config.image_size)
        query_x = x_CDHW[:, config.shots :].flatten(0, 1).unsqueeze(1)
        if config.augment_query:
            query_x = self.augment(query_x, chance)
        labels_C = torch.arange(config.ways)
        return OneTask(
            x_CDHW[:, : config.shots].flatten(0, 1).unsqueeze(1),
            labels_C.repeat_interleave(config.shots),
            query_x,
            labels_C.repeat_interleave(config.queries),
        )


def assign_hands(config: GlyphsConfig, chance: Generator) -> Tensor:
    """The hand of each drawing, support first: [shots + queries]; the two sides share no hand."""
    share = config.queries / (config.shots + config.queries)
    held_out = min(max(round(config.hands * share), 1), config.hands - 1)
    order = torch.randperm(config.hands, generator=chance)
    queries, support = order[:held_out], order[held_out:]
    picks = torch.arange(max(config.shots, config.queries))
    return torch.cat([support[picks[: config.shots] % len(support)], queries[picks[: config.queries] % held_out]])


# --- Alphabets: styles and characters ---------------------------------------------------------------------------------


class Style(NamedTuple):
    """What the characters of an alphabet have in common."""

    kinds: Floats  # probability of each way of turning
    headings: Floats  # preferred directions of the pen [rad]
    lengths: Floats  # preferred lengths of a stroke
    curl: float  # factor on all turns
    handed: float  # probability of turning clockwise
    strokes: Floats  # probability of 1, 2, ... strokes
    joints: Floats  # probability of starting at an end, starting inside, crossing, standing apart
    aspect: float  # width over height


@lru_cache(maxsize=64)
def make_alphabet(seed: int, letters: int, hands: int) -> Alphabet:
    """The alphabet of a seed, with so many characters and hands.

    Candidates are made in number, and each next character is the first one that is unlike all those before.
    """
    chance = np.random.default_rng(derive(seed, "style"))
    style = _style(chance)
    made = [_character(style, chance) for _ in range(3 * letters)]
    controls, mask = torch.stack([c for c, _ in made]), torch.stack([m for _, m in made])
    keep = _unlike(controls, mask, letters)
    noise = generator(seed, "hands")
    return Alphabet(
        controls[keep],
        mask[keep],
        torch.randn(hands, letters, STROKES, len(MODES), 2, generator=noise),
        torch.randn(hands, letters, 5, 2, generator=noise),
        _hands(torch.randn(hands, 6, generator=noise), float(chance.uniform(0.020, 0.028))),
    )


def _hands(normal_H6: Tensor, pen: float) -> Tensor:
    spread = torch.tensor([0.14, 0.07, 0.10, 0.11, 0.13, 0.25])
    hand_H6 = normal_H6.clamp(-2.2, 2.2) * spread
    hand_H6[:, 4] = pen * hand_H6[:, 4].exp()
    hand_H6[:, 5] = hand_H6[:, 5].exp()
    return hand_H6


_KIND_WEIGHTS = np.array([1.6, 1.4, 0.7, 1.1, 0.7, 0.9, 0.8, 0.4])
_TURN_AT = np.linspace(0, 1, CONTROLS - 2)


def _turns(kind: int, u: float) -> Floats:
    """How a stroke of a kind turns at each inner control point [rad]; `u` in [0, 1] varies it."""
    t, flat = _TURN_AT, np.ones(CONTROLS - 2) / (CONTROLS - 2)
    corner = np.zeros(CONTROLS - 2)
    corner[2 + round(3 * u)] = 1.0
    late, early = np.clip(t - 0.55, 0, None), np.clip(0.45 - t, 0, None)
    profiles = (
        lambda: flat * 0.25 * (u - 0.5),  # a line
        lambda: flat * (0.9 + 1.6 * u),  # a bow
        lambda: np.sin(2 * np.pi * t) * (0.25 + 0.25 * u),  # a wave
        lambda: late / late.sum() * (2.0 + 1.6 * u),  # a hook
        lambda: (late / late.sum() - early / early.sum()) * (1.8 + 1.2 * u),  # hooks on both sides
        lambda: corner * (1.5 + 0.9 * u),  # a corner
        lambda: flat * (5.4 + 1.2 * u),  # a ring
        lambda: t / t.sum() * (6.0 + 2.5 * u),  # a curl
    )
    return np.asarray(profiles[kind](), dtype=np.float64)


def _style(chance: np.random.Generator) -> Style:
    base = chance.uniform(-0.15, 0.15)
    grid = np.array([0, 0.25, 0.5, 0.75, 1.0]) * np.pi
    weights = chance.dirichlet([0.9] * len(grid)) + 0.04
    chosen = chance.choice(grid, size=3, replace=False, p=weights / weights.sum())
    strokes = np.array([0.10, 0.40, 0.34, 0.16]) * chance.uniform(0.4, 1.6, STROKES)
    kinds = chance.dirichlet(_KIND_WEIGHTS) + 0.02
    joints = chance.dirichlet([1.2, 1.2, 1.0, 0.5])
    return Style(
        kinds=kinds / kinds.sum(),
        headings=chosen + base,
        lengths=np.array([chance.uniform(0.35, 0.5), chance.uniform(0.6, 0.8), 1.0]),
        curl=float(chance.uniform(0.75, 1.15)),
        handed=float(chance.beta(0.6, 0.6)),
        strokes=strokes / strokes.sum(),
        joints=joints,
        aspect=float(np.exp(chance.normal(0, 0.22))),
    )


def _pick(probability: Floats, chance: np.random.Generator) -> int:
    return min(int(np.searchsorted(probability.cumsum(), chance.random())), len(probability) - 1)


def _stroke(style: Style, chance: np.random.Generator) -> Floats:
    """A pen path from (0, 0): [K, 2], of about the length that the style likes."""
    kind = _pick(style.kinds, chance)
    turns = _turns(kind, float(chance.uniform())) * style.curl * (1 if chance.uniform() < style.handed else -1)
    heading = style.headings[chance.integers(len(style.headings))] + chance.normal(0, 0.10)
    angles = heading + np.concatenate([[0.0], np.cumsum(turns)]) - (0.5 * turns.sum() if kind in (1, 2) else 0)
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    # A ring is as long as it is wide, not as its line is long.
    extent = np.ptp(path, axis=0).max()
    return np.asarray(path / extent * style.lengths[chance.integers(len(style.lengths))] * chance.uniform(0.85, 1.15))


def _character(style: Style, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Control points [S, K, 2] of a character, fitted to the frame, and its mask [S]."""
    count = 1 + _pick(style.strokes, chance)
    strokes = [_stroke(style, chance)]
    while len(strokes) < count:
        stroke, old = _stroke(style, chance), strokes[int(chance.integers(len(strokes)))]
        joint = _pick(style.joints, chance)
        inner = int(chance.integers(2, CONTROLS - 2))
        anchor = old[(0, CONTROLS - 1)[int(chance.integers(2))]] if joint == 0 else old[inner]
        own = stroke[CONTROLS // 2] if joint >= 2 else stroke[0]
        apart = (2 * chance.integers(2, size=2) - 1) * chance.uniform(0.22, 0.42, 2) if joint == 3 else 0.0
        strokes.append(stroke - own + anchor + apart)
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    stretch = np.array([style.aspect**0.5, style.aspect**-0.5])
    longest = max(((high - low) * stretch).max(), 1e-6)
    fitted = (points - (low + high) / 2) * stretch / longest * FRAME * chance.uniform(0.82, 1.0)
    controls = torch.zeros(STROKES, CONTROLS, 2)
    controls[:count] = torch.from_numpy(fitted).float().view(count, CONTROLS, 2)
    return controls, (torch.arange(STROKES) < count).float()


def _unlike(controls_ASK2: Tensor, mask_AS: Tensor, letters: int) -> list[int]:
    """Indices of `letters` candidates: clear ones first, and each unlike those before it, as far as there are any."""
    count = controls_ASK2.shape[0]
    ink_A = render(controls_ASK2, mask_AS, torch.full((count,), 0.07), 14).flatten(1)
    ink_A = ink_A / ink_A.norm(dim=1, keepdim=True)
    like_AA = (ink_A @ ink_A.T).tolist()
    clear_A = (_clarity(controls_ASK2, mask_AS) > CLARITY).tolist()
    rest = sorted(range(count), key=lambda i: not clear_A[i])
    kept = [rest.pop(0)]
    likeness = list(like_AA[kept[0]])
    while len(kept) < letters:
        unlike = (i for i in rest if likeness[i] < LIKENESS)
        best = next(unlike, None)
        kept.append(min(rest, key=likeness.__getitem__) if best is None else best)
        rest.remove(kept[-1])
        likeness = [max(pair) for pair in zip(likeness, like_AA[kept[-1]], strict=True)]
    return kept


def _clarity(controls_ASK2: Tensor, mask_AS: Tensor) -> Tensor:
    """The area of ink over what the strokes would cover if they lay side by side: [A]."""
    pen, size = 0.03, 28
    area_A = render(controls_ASK2, mask_AS, torch.full(mask_AS.shape[:1], pen), size).mean(dim=(1, 2))
    length_AS = torch.linalg.vector_norm(controls_ASK2.diff(dim=2), dim=-1).sum(-1)
    return torch.div(area_A, (length_AS * mask_AS).sum(-1) * (2 * pen))
