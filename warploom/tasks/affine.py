"""Random affine maps of a whole batch of images at once. Shape suffixes: B batch, H height, W width."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from warploom.tasks.configs.base import AugmentConfig


def augmented(config: AugmentConfig, x_B: Tensor, generator: Generator) -> Tensor:
    """The batch under the random affine maps that `config` sets, or as it is when `augment` is off.

    Args:
        config: the ranges.
        x_B: [B, C, H, W] float, background 0.
        generator: the only source of chance.

    Returns:
        [B, C, H, W], like `x_B`.
    """
    if not config.augment:
        return x_B
    return random_affine(
        x_B,
        generator,
        rotate_deg=config.rotate_deg,
        translate=config.translate,
        scale_min=config.scale_min,
        scale_max=config.scale_max,
    )


def random_affine(
    x_BCHW: Tensor,
    generator: Generator,
    *,
    rotate_deg: float,
    translate: float,
    scale_min: float,
    scale_max: float,
) -> Tensor:
    """Rotate, scale and shift each image of a batch by its own random amounts.

    Args:
        x_BCHW: [B, C, H, W] float, background 0.
        generator: the only source of chance; four numbers are drawn per image.
        rotate_deg: degrees; the angle is uniform on [-rotate_deg, rotate_deg].
        translate: fraction of the side; each shift is uniform on [-translate, translate].
        scale_min: smallest magnification (1 keeps the size, 2 doubles it).
        scale_max: largest magnification.

    Returns:
        [B, C, H, W] of the same type; what comes from outside the image is 0.

    Example:
        >>> x = torch.rand(2, 1, 28, 28)
        >>> still = dict(rotate_deg=0.0, translate=0.0, scale_min=1.0, scale_max=1.0)
        >>> torch.allclose(random_affine(x, torch.Generator(), **still), x, atol=1e-5)
        True

    Source: the augmentation of the Omniglot experiments of Leap and WarpGrad (any angle, shift 0.2, scale 0.8 to 1.2).
    Departures: shifts are fractions of a pixel where theirs are whole pixels, and pixels are interpolated bilinearly.
    """
    height, width = x_BCHW.shape[-2:]
    u_4B = torch.rand(4, x_BCHW.shape[0], generator=generator, device=generator.device, dtype=torch.float32)
    u_4B = u_4B.to(device=x_BCHW.device, dtype=x_BCHW.dtype)
    angle_B = (u_4B[0] * 2 - 1) * math.radians(rotate_deg)
    shift_2B = (u_4B[1:3] * 2 - 1) * (2 * translate)  # the sampling grid spans [-1, 1], so a side is 2
    scale_B = scale_min + u_4B[3] * (scale_max - scale_min)
    maps_B = _inverse_maps(angle_B, shift_2B, scale_B, height / width)
    grid = F.affine_grid(maps_B, list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _inverse_maps(angle_B: Tensor, shift_2B: Tensor, scale_B: Tensor, ratio: float) -> Tensor:
    """Where each output pixel comes from: [B, 2, 3] on the [-1, 1] grid of an image of height/width `ratio`."""
    cos_B, sin_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    shift_x_B, shift_y_B = shift_2B
    xx_B, xy_B = cos_B, sin_B * ratio
    yx_B, yy_B = -sin_B / ratio, cos_B
    x0_B = -(xx_B * shift_x_B + xy_B * shift_y_B)
    y0_B = -(yx_B * shift_x_B + yy_B * shift_y_B)
    return torch.stack([xx_B, xy_B, x0_B, yx_B, yy_B, y0_B], dim=-1).view(-1, 2, 3)
