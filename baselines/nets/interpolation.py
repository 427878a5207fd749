"""Walks between two normal latents: great circles, which keep to the shell where the latents of images lie."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from baselines.contract import Noise, Strip

PAIRS, PLACES = 4, 9


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of a and b, both (B, ...), one angle an image: weight 0 is a, 1 is b.

    Song et al. 2020 (arXiv:2010.02502), eqs. 67 and 68, after Shoemake 1985. Where a and b are parallel it is linear.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine).view(-1, *[1] * (a.ndim - 1))
    parallel = angle.sin() < 1e-6
    sine = torch.where(parallel, 1.0, angle.sin())
    round_a, round_b = torch.sin((1 - weight) * angle) / sine, torch.sin(weight * angle) / sine
    return torch.where(parallel, torch.lerp(a, b, weight), round_a * a + round_b * b)


def interpolation(
    title: str,
    caption: str,
    shape: tuple[int, ...],
    decode: Callable[[Tensor], Tensor],
    noise: Noise,
) -> Strip:
    """PAIRS rows of PLACES images, from one latent to another.

    Args:
        title: of the strip.
        caption: what to see.
        shape: of one latent.
        decode: latents (B, *shape) to uint8 images (B, C, H, W).
        noise: of the ends.
    """
    ends = noise.normal("interpolation", 2 * PAIRS, shape)
    weights = [place / (PLACES - 1) for place in range(PLACES)]
    latents = torch.stack([slerp(ends[:PAIRS], ends[PAIRS:], weight) for weight in weights], 1)
    images = decode(latents.flatten(0, 1)).cpu()
    columns = tuple(str(Fraction(place, PLACES - 1)) for place in range(PLACES))
    return Strip(title, caption, ("",) * PAIRS, columns, images.view(PAIRS, PLACES, *images.shape[1:]))
