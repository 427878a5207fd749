"""Arithmetic with latents (Radford et al. 2016, arXiv:1511.06434, section 6.3.2), with concepts that pixels measure.

The paper averages the latents of three images that show a concept, picked by eye, and adds and subtracts the means.
Here a concept is a number that any image has (how much ink, how far it leans), so that nothing is picked: the means are
those of the images with the most and with the least of it, and what their difference does to fresh latents is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from baselines.contract import Noise, Strip

DRAWN, EXEMPLARS, CHECKED, SHOWN = 512, 16, 200, 8
"""Latents looked at for exemplars; exemplars averaged at either end; fresh latents measured; of these shown."""


def ink(images: Tensor) -> Tensor:
    """Mean intensity, (B,) in [0, 1], of images (B, C, H, W) in [0, 1]."""
    return images.flatten(1).mean(1)


def lean(images: Tensor) -> Tensor:
    """By how many columns an image (B, C, H, W) in [0, 1] moves right for each row upwards, (B,); 0 if it is black.

    The slope of the regression of columns on rows, weighted by intensity.
    """
    weight = images.mean(1)
    weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-12)
    up = -torch.arange(images.shape[2], dtype=images.dtype, device=images.device).view(1, -1, 1)
    right = torch.arange(images.shape[3], dtype=images.dtype, device=images.device).view(1, 1, -1)
    up = up - (weight * up).sum((1, 2), keepdim=True)
    right = right - (weight * right).sum((1, 2), keepdim=True)
    return (weight * up * right).sum((1, 2)) / (weight * up**2).sum((1, 2)).clamp(min=1e-12)


CONCEPTS: Mapping[str, Callable[[Tensor], Tensor]] = {"ink": ink, "lean to the right": lean}


def arithmetic(latent: int, levels: int, decode: Callable[[Tensor], Tensor], noise: Noise) -> Strip:
    """For each concept SHOWN fresh latents, as drawn, and with the concept's difference subtracted and added.

    Args:
        latent: dimensions of z, which is standard normal.
        levels: of the images.
        decode: z (B, latent) to uint8 images (B, C, H, W), each by itself.
        noise: of all latents.
    """
    fresh = noise.normal("arithmetic", CHECKED, (latent,))
    drawn = noise.normal("exemplars", DRAWN, (latent,))
    images, plain = decode(drawn), decode(fresh)
    rows, pictures, told = ["as drawn"], [plain[:SHOWN]], []
    for name, measure in CONCEPTS.items():
        order = measure(_unit(images, levels)).argsort()
        most, least = drawn[order[-EXEMPLARS:]].mean(0), drawn[order[:EXEMPLARS]].mean(0)
        less, more = decode(fresh - (most - least)), decode(fresh + (most - least))
        rows += [f"less {name}", f"more {name}"]
        pictures += [less[:SHOWN], more[:SHOWN]]
        scores = [measure(_unit(x, levels)) for x in (less, plain, more)]
        rises = float(((scores[0] <= scores[1]) & (scores[1] <= scores[2]) & (scores[0] < scores[2])).float().mean())
        means = ", ".join(f"{float(score.mean()):.3g}" for score in scores)
        told.append(
            f"{name}: mean {means} with it subtracted, as drawn and added; {100 * rises:.0f} % rise in this order"
        )
    caption = (
        f"Mean latent of the {EXEMPLARS} of {DRAWN} images with the most of a concept, less that of the {EXEMPLARS} "
        f"with the least, subtracted from fresh latents and added to them. Of {CHECKED} of those: {'; '.join(told)}."
    )
    columns = tuple(str(i + 1) for i in range(SHOWN))
    return Strip("Latent arithmetic", caption, tuple(rows), columns, torch.stack(pictures).cpu())


def _unit(images: Tensor, levels: int) -> Tensor:
    return images.double() / (levels - 1)
