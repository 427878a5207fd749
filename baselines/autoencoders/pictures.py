"""What an autoencoder shows of itself: reconstructions, walks between test images, a map of its space of codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.autoencoders.priors import Chart
from baselines.contract import Noise, Strip
from baselines.nets.interpolation import interpolation

SHOWN = 10  # test images that are reconstructed
PAIRS, PLACES = 4, 9

Decode = Callable[[Tensor], Tensor]
"""Codes (n, K) to uint8 images (n, C, H, W)."""


def reconstructions(real: Tensor, reconstructed: Tensor) -> Strip:
    """Test images above what comes back through the code, both uint8 (n, C, H, W)."""
    images = torch.stack([real[:SHOWN].cpu(), reconstructed[:SHOWN].cpu()])
    caption = (
        "Test images and what is left of them after encoder and decoder. What a code does not hold is drawn as the "
        "average of what it could have been: strokes lose their ends and odd shapes become common ones."
    )
    columns = tuple(str(i + 1) for i in range(images.shape[1]))
    return Strip("Reconstructions", caption, ("test image", "reconstruction"), columns, images)


def between_images(real: Tensor, codes: Tensor, decode: Decode) -> Strip:
    """Straight lines between the codes (n, K) of test images uint8 (n, C, H, W), with the images at both ends."""
    first = torch.arange(0, 2 * PAIRS, 2, device=codes.device)
    a, b = codes[first % len(codes)], codes[(first + 1) % len(codes)]
    weights = torch.linspace(0, 1, PLACES, device=codes.device)
    walks = torch.lerp(a[:, None], b[:, None], weights.view(1, -1, 1).to(codes.dtype))
    images = decode(walks.flatten(0, 1)).cpu().view(PAIRS, PLACES, *real.shape[1:])
    ends = [real[(first + i).to(real.device) % len(real)].cpu()[:, None] for i in (0, 1)]
    caption = (
        "Between two test images, along the straight line between their codes. Where codes fill their space, every "
        "place on the way is an image of the kind; where they leave holes, the middle shows both ends at once."
    )
    columns = ("image", *(f"{float(weight):.3g}" for weight in weights), "image")
    return Strip("Between two test images", caption, ("",) * PAIRS, columns, torch.cat([ends[0], images, ends[1]], 1))


def between_draws(latent: int, decode: Decode, noise: Noise) -> Strip:
    """Great circles between pairs of draws of a standard normal prior."""
    caption = (
        "Between two draws of the prior, along the great circle, far from any test image. Images that look real all "
        "the way tell that the decoder knows the whole of the prior and not only where codes of images lie."
    )
    return interpolation("Between two draws of the prior", caption, (latent,), decode, noise)


def charted(chart: Chart, decode: Decode) -> Strip:
    """What lies at the places of a chart."""
    rows, columns = chart.points.shape[:2]
    images = decode(chart.points.flatten(0, 1)).cpu()
    caption = (
        f"{chart.told} Neighbours change little by little; where one class gives way to another, the border shows."
    )
    return Strip(
        "The space of codes", caption, chart.rows, chart.columns, images.view(rows, columns, *images.shape[1:])
    )
