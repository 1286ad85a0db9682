"""From control points to ink: how a hand writes a character, and how a pen path becomes pixels.

A hand bends every stroke in its own way, and a drawing adds a little more. Control points become a smooth curve, and
the curve becomes ink. Characters are made in `warploom.tasks.glyphs`.

Shape suffixes: A characters of an alphabet, C characters of a task, D drawings of a character, H hands, B images,
S strokes, N strokes that exist, K control points, P points of a curve, M modes of bending; a last 2 is (x, y), in
sides of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

STROKES = 4
SOFTNESS = 0.9  # the soft distance blends neighbours within this many half widths of the pen
CONTROLS = 10
PER_SPAN = 8  # points of the curve between two control points
FRAME = 0.70  # the longer side of a character, in sides of the image
MARGIN = 0.05  # a hand that would come nearer to the edge than this writes smaller


@dataclass(frozen=True, slots=True)
class Alphabet:
    """The characters of an alphabet and its hands.

    Args:
        controls_ASK2: control points, centred on 0.
        mask_AS: 1 where a character has that stroke.
        bend_HASM2: how each hand bends each stroke of each character.
        warp_HA52: how each hand warps each character as a whole.
        hand_H6: per hand: slant, turn [rad], log size, log aspect, pen [half a width, sides], shakiness.
    """

    controls_ASK2: Tensor
    mask_AS: Tensor
    bend_HASM2: Tensor
    warp_HA52: Tensor
    hand_H6: Tensor


_T = torch.linspace(0, 1, CONTROLS)
# Shift, lean, bow, wave, ripple: a bent stroke stays smooth, and its joints stay near each other.
MODES = torch.stack(
    [torch.ones(CONTROLS), 2 * _T - 1, (math.pi * _T).sin(), (2 * math.pi * _T).sin(), (4 * math.pi * _T).sin()]
)
_BEND = torch.tensor([0.010, 0.026, 0.024, 0.014, 0.004])[:, None]
_WARP = torch.tensor([0.035, 0.035, 0.040, 0.040, 0.040])[:, None]
_TAKE = 0.45  # how much two drawings by one hand differ, where 1 is how much two hands differ


def draw(alphabet: Alphabet, chosen_C: Tensor, hands_D: Tensor, chance: Generator, size: int) -> Tensor:
    """Let each hand draw each chosen character once.

    Args:
        alphabet: the script.
        chosen_C: [C] int64, characters.
        hands_D: [D] int64, the hand of each drawing.
        chance: the source of what differs between two drawings by one hand.
        size: side of the images in pixels.

    Returns:
        [C, D, size, size] float32 in [0, 1] in steps of 1/255, ink 1.
    """
    shape = (len(chosen_C), len(hands_D))
    bend = torch.randn(*shape, STROKES, len(MODES), 2, generator=chance) * _TAKE
    warp = torch.randn(*shape, 5, 2, generator=chance) * _TAKE
    place = torch.randn(*shape, 1, 1, 2, generator=chance).clamp(-2, 2) * 0.022
    width = (torch.randn(*shape, generator=chance).clamp(-2, 2) * 0.06).exp()
    hand_D6 = alphabet.hand_H6[hands_D]
    bend = (bend + alphabet.bend_HASM2[hands_D][:, chosen_C].transpose(0, 1)) * _BEND
    warp = (warp + alphabet.warp_HA52[hands_D][:, chosen_C].transpose(0, 1)) * _WARP
    shaky_D = hand_D6[:, 5].view(1, -1, 1, 1, 1)
    bent = alphabet.controls_ASK2[chosen_C][:, None] + shaky_D * (MODES.T @ bend)
    bent = bent + _powers(bent / (FRAME / 2)) @ warp[:, :, None]
    mask = alphabet.mask_AS[chosen_C][:, None].expand(*shape, STROKES)
    written = (bent @ _slants(hand_D6)[None, :, None] + place) * mask[..., None, None]
    reach = written.abs().amax(dim=(2, 3, 4), keepdim=True)
    written = written * ((0.5 - MARGIN) / reach).clamp(max=1.0)
    pen = (hand_D6[:, 4] * width).flatten()
    image_B = render(written.flatten(0, 1), mask.flatten(0, 1), pen, size)
    return image_B.view(*shape, size, size)


def _powers(at_2: Tensor) -> Tensor:
    """x, y, x², xy, y²: a warp made of them moves strokes that meet together."""
    x, y = at_2.unbind(-1)
    return torch.stack([x, y, x * x, x * y, y * y], dim=-1)


def _slants(hand_D6: Tensor) -> Tensor:
    """The linear map of each hand, to be applied from the right: [D, 2, 2]."""
    slant, turn, size, aspect = hand_D6[:, :4].T
    wide, high = (size + aspect / 2).exp(), (size - aspect / 2).exp()
    zero = torch.zeros_like(slant)
    shape_D = torch.stack([wide, zero, -slant * high, high], dim=-1).view(-1, 2, 2)
    turn_D = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], dim=-1).view(-1, 2, 2)
    return shape_D @ turn_D


def render(controls_BSK2: Tensor, mask_BS: Tensor, pen_B: Tensor, size: int) -> Tensor:
    """Ink along smooth curves, anti-aliased.

    The image of Gaussian dots along a curve is a product of two thin matrices, so no distance of a pixel to a point is
    ever formed; its logarithm is a soft distance to the curve, and the pen's half width is where ink ends.

    Args:
        controls_BSK2: control points in sides of the image, 0 at its centre, y downwards.
        mask_BS: 1 where a stroke exists.
        pen_B: half the width of a line, in sides.
        size: side of the image in pixels.

    Returns:
        [B, size, size] float32 in [0, 1] in steps of 1/255, so that the last bit of a sum changes nothing.
    """
    image_N, stroke_N = mask_BS.nonzero(as_tuple=True)
    curve_NP2 = _CURVE @ controls_BSK2[image_N, stroke_N]
    sigma_B = (pen_B * SOFTNESS).clamp(min=0.3 / size)
    pixel = (torch.arange(size) + 0.5) / size - 0.5
    gap = (pixel - curve_NP2[..., None]) / sigma_B[image_N].view(-1, 1, 1, 1)  # [N, P, 2, size]
    dots = gap.square_().mul_(-0.5).clamp_(min=-40.0).exp_()  # numbers near underflow would be ten times slower
    dots_y = dots[:, :, 1] * _point_lengths(curve_NP2)[..., None]
    density = torch.zeros(len(mask_BS), size, size).index_add_(0, image_N, dots_y.mT @ dots[:, :, 0])
    density = density / (math.sqrt(2 * math.pi) * sigma_B.view(-1, 1, 1))
    distance = sigma_B.view(-1, 1, 1) * (-2 * density.clamp(1e-12, 1.0).log()).clamp(min=0).sqrt()
    ink = ((pen_B.view(-1, 1, 1) - distance) * size + 0.5).clamp(0, 1)
    return (ink * 255).round() / 255


def _point_lengths(curve_NP2: Tensor) -> Tensor:
    """The length of curve that each point stands for: [N, P]."""
    half_NP = torch.linalg.vector_norm(curve_NP2.diff(dim=1), dim=-1) / 2
    return F.pad(half_NP, (1, 0)) + F.pad(half_NP, (0, 1))


def _curve_basis() -> Tensor:
    """Catmull-Rom: the matrix [P, K] from control points to points of the curve through them."""
    rows = torch.zeros((CONTROLS - 1) * PER_SPAN + 1, CONTROLS)
    for row in range(rows.shape[0]):
        span = min(row // PER_SPAN, CONTROLS - 2)
        t = row / PER_SPAN - span
        weights = (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        )
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            rows[row, min(max(span + offset, 0), CONTROLS - 1)] += weight
    return rows


_CURVE = _curve_basis()
