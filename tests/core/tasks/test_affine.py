from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from warploom.seeding import generator
from warploom.tasks.affine import augmented, random_affine
from warploom.tasks.configs.glyphs import GlyphsConfig

STILL = {"rotate_deg": 0.0, "translate": 0.0, "scale_min": 1.0, "scale_max": 1.0}


def blob(batch: int, row: float = 13.5, column: float = 13.5, width: float = 2.0, side: int = 28) -> Tensor:
    at = torch.arange(side, dtype=torch.float32)
    image = torch.exp(-((at[:, None] - row) ** 2 + (at[None] - column) ** 2) / (2 * width**2))
    return image.expand(batch, 1, side, side).clone()


def centres(x_B: Tensor) -> tuple[Tensor, Tensor]:
    at = torch.arange(x_B.shape[-1], dtype=torch.float32)
    mass = x_B.sum(dim=(1, 2, 3))
    return (x_B.sum(dim=(1, 3)) * at).sum(1) / mass, (x_B.sum(dim=(1, 2)) * at).sum(1) / mass


def test_no_motion_is_the_identity() -> None:
    x_B = torch.rand(5, 1, 28, 28, generator=generator(1))
    assert torch.allclose(random_affine(x_B, generator(2), **STILL), x_B, atol=1e-5)


def test_the_generator_alone_decides_and_each_image_moves_on_its_own() -> None:
    x_B = blob(6, row=9)
    moves = {"rotate_deg": 90.0, "translate": 0.2, "scale_min": 0.8, "scale_max": 1.2}
    first, again = random_affine(x_B, generator(3), **moves), random_affine(x_B, generator(3), **moves)
    assert torch.equal(first, again)
    assert not torch.equal(first, random_affine(x_B, generator(4), **moves))
    assert len({image.numpy().tobytes() for image in first}) == 6
    assert torch.equal(x_B, blob(6, row=9))


def test_a_shift_stays_within_its_share_of_the_side() -> None:
    rows, columns = centres(random_affine(blob(400), generator(5), **{**STILL, "translate": 0.2}))
    for at in (rows, columns):
        assert (at - 13.5).abs().max() <= 0.2 * 28 + 0.1
        assert (at - 13.5).max() > 0.17 * 28
        assert (at - 13.5).min() < -0.17 * 28


def test_a_scale_is_a_magnification() -> None:
    small = blob(200, width=1.5)
    bigger = random_affine(small, generator(6), **{**STILL, "scale_min": 2.0, "scale_max": 2.0})
    assert torch.allclose(bigger.sum(dim=(1, 2, 3)) / small.sum(dim=(1, 2, 3)), torch.tensor(4.0), rtol=0.05)


def test_a_rotation_keeps_the_radius_and_spans_the_angles() -> None:
    rows, columns = centres(random_affine(blob(500, row=7), generator(7), **{**STILL, "rotate_deg": 60.0}))
    assert torch.allclose(torch.hypot(rows - 13.5, columns - 13.5), torch.tensor(6.5), atol=0.1)
    angles = torch.atan2(columns - 13.5, 13.5 - rows) * 180 / math.pi
    assert angles.abs().max() <= 60.5
    assert angles.max() > 55
    assert angles.min() < -55


def test_a_rotation_of_an_oblong_image_does_not_shear() -> None:
    at_row, at_column = torch.arange(20.0), torch.arange(40.0)
    image = torch.exp(-((at_row[:, None] - 9.5) ** 2 + (at_column[None] - 24.5) ** 2) / 8)
    turned = random_affine(image.expand(50, 1, 20, 40), generator(8), **{**STILL, "rotate_deg": 180.0})
    mass = turned.sum(dim=(1, 2, 3))
    rows = (turned.sum(dim=(1, 3)) * at_row).sum(1) / mass
    columns = (turned.sum(dim=(1, 2)) * at_column).sum(1) / mass
    assert torch.allclose(torch.hypot(rows - 9.5, columns - 19.5), torch.tensor(5.0), atol=0.15)


def test_what_comes_from_outside_is_background() -> None:
    moved = random_affine(torch.ones(50, 1, 28, 28), generator(9), **{**STILL, "translate": 0.5})
    assert moved.min() == 0
    assert moved.max() <= 1 + 1e-6


@pytest.mark.parametrize("on", [True, False])
def test_the_switch_of_the_config(on: bool) -> None:
    x_B = blob(3, row=9)
    assert torch.equal(augmented(GlyphsConfig(augment=on), x_B, generator(1)), x_B) is not on
