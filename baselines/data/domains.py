"""Digits in domains: coloured ink, black or white ground, thin to thick strokes, with the truth of every translation.

Made of enlarged grey digits (see `enlarged`). The strokes of each digit are brought to one of three widths: the image,
sharpened, is cut at half its peak on a finer grid, and its contour is moved in or out by the difference between the
digit's own width and the one that is wanted. That is an erosion or dilation by a disc whose radius is the image's own
and need not be a whole number of pixels; of fixed radii, as in Morpho-MNIST (Castro et al. 2019, arXiv:1809.02943),
a thick hand's thin strokes would be a thin hand's normal ones. Ink is blended with the ground by the share of a pixel
that it covers.

Which values an image has, and which it is asked to get, hangs on a hash of its split and place alone.
"""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.data import enlarged
from baselines.data.dataset import Dataset, Split
from baselines.given import Given, Requests
from baselines.types import Conditions, ImageShape

INKS = {"red": (220, 40, 40), "green": (30, 160, 60), "blue": (40, 90, 240), "purple": (190, 60, 210)}
GROUNDS = {"no": (0, 0, 0), "yes": (255, 255, 255)}  # by whether the image is inverted
WIDTHS = {"thin": 1.4, "normal": 2.7, "thick": 4.0}  # of strokes, in pixels
ATTRIBUTES = {"ink": tuple(INKS), "inverted": tuple(GROUNDS), "stroke": tuple(WIDTHS)}

_GRID = 64  # pixels a side of the grid on which contours are found, as near as whole multiples come
_FAR = 12  # distances on that grid are told up to so many of its pixels
_SHARPENING, _AROUND = 2.0, 5  # times what a pixel is above the mean of so many pixels a side
_KEPT = 0.4  # of the width that a stroke has hereabouts stays: narrow places of a wide one do not break
_CHUNK = 64
_SMALL = 5_000  # of fewer train images two renderings each are made


def of(base: Dataset) -> Dataset:
    """`digits-domains` or `mnist-domains`: RGB, 16x16 or 32x32, 256 levels; labels tell the digit.

    Attributes are ink, inverted and stroke, in this order. Validation and test images each carry a request for other
    values of at least one of them, the image that is right, and the values that it has now. What is judged are the
    attributes and the digit, which is to be kept.
    """
    large = enlarged.of(base)
    shape = ImageShape(3, *large.shape[1:])
    renderings = 2 if len(large.train) < _SMALL else 1
    return dataclasses.replace(
        large,
        name=f"{base.name}-domains",
        shape=shape,
        train=_train(large.train, renderings),
        val=_asked(large.val, "val"),
        test=_asked(large.test, "test"),
        note=f"{' x '.join(str(len(values)) for values in ATTRIBUTES.values())} domains of {', '.join(ATTRIBUTES)}, "
        f"{renderings} renderings a train image, one else; of {large.note}",
        tasks=frozenset({"unconditional", "domain_translation"}),
        conditions=Conditions(attributes=ATTRIBUTES, source=shape),
    )


def _train(split: Split, renderings: int) -> Split:
    assert split.labels is not None
    values = torch.stack([_values(f"train {k}", len(split))[0] for k in range(renderings)], 1)
    images = rendered(split.images, values)
    return Split(images.transpose(0, 1).flatten(0, 1), split.labels.repeat(renderings), attributes=_in_order(values))


def _asked(split: Split, name: str) -> Split:
    """The images, and beside each the request for another domain."""
    assert split.labels is not None
    have, want = _values(name, len(split))
    images, answers = rendered(split.images, torch.stack([have, want], 1)).unbind(1)
    judged = torch.cat([want, split.labels[:, None]], 1)
    requests = Requests(Given(images=images, attributes=want), attributes=judged, answers=answers, originals=have)
    return Split(images, split.labels, attributes=have, requests=requests)


def _in_order(values: Tensor) -> Tensor:
    """(N, K, A) to (K N, A), the first rendering of all images first."""
    return values.transpose(0, 1).flatten(0, 1)


def _values(name: str, n: int) -> tuple[Tensor, Tensor]:
    """What images 0 .. n - 1 have and what they are to get, int64 (n, A) each: any domain, and any other."""
    choices = [len(values) for values in ATTRIBUTES.values()]
    domains = 1
    for k in choices:
        domains *= k
    digests = [hashlib.sha256(f"domains {name} {i}".encode()).digest() for i in range(n)]
    first = torch.tensor([int.from_bytes(d[:7], "big") % domains for d in digests])
    further = torch.tensor([int.from_bytes(d[7:14], "big") % (domains - 1) for d in digests])
    return _places(first, choices), _places((first + 1 + further) % domains, choices)


def _places(domain: Tensor, choices: list[int]) -> Tensor:
    """The number of a domain (n,) as a value of each attribute (n, A)."""
    found = []
    for k in choices:
        found.append(domain % k)
        domain = domain // k
    return torch.stack(found, 1)


def rendered(images: Tensor, values: Tensor) -> Tensor:
    """Grey digits uint8 (N, 1, H, W) of 256 levels in K domains each, uint8 (N, K, 3, H, W); values: int64 (N, K, 3).

    A digit of value 255 on black, whose strokes have the width `WIDTHS`, is mixed of ink and ground.
    """
    colours = torch.tensor([list(INKS.values())]).squeeze(0), torch.tensor([list(GROUNDS.values())]).squeeze(0)
    ink, ground = (table[values[..., i]][..., None, None].float() for i, table in enumerate(colours))
    cover = redrawn(images, torch.tensor(list(WIDTHS.values()))[values[..., 2]])[:, :, None]
    return (ground + cover * (ink - ground)).round().to(torch.uint8)


def redrawn(images: Tensor, widths: Tensor) -> Tensor:
    """The share of each pixel that ink covers, (N, K, H, W) in [0, 1], where strokes are `widths` (N, K) pixels wide.

    images: uint8 (N, 1, H, W) of 256 levels, ink light on black.
    """
    parts = zip(torch.split(images, _CHUNK), torch.split(widths, _CHUNK), strict=True)
    return torch.cat([_redrawn(part, wanted) for part, wanted in parts])


def _redrawn(images: Tensor, widths: Tensor) -> Tensor:
    finer = max(_GRID // max(images.shape[2:]), 1)
    distance = contour(images, finer)
    inside = (-distance).clamp(min=0)
    # Of a stroke of width w the distances to its edge are uniform on [0, w / 2]: their mean is a quarter of w
    own = 4 * inside.sum((1, 2, 3)) / (inside > 0).sum((1, 2, 3)).clamp(min=1)
    moved = (widths * finer - own[:, None]) / 2
    core = F.max_pool2d(inside, 2 * finer + 1, 1, finer)  # half the width hereabouts
    moved = torch.maximum(moved[..., None, None], (_KEPT - 1) * core)
    return F.avg_pool2d((0.5 + moved - distance).clamp(0, 1), finer)


def contour(images: Tensor, finer: int) -> Tensor:
    """Signed distance to the digit's contour (N, 1, H finer, W finer), in pixels of that grid, below 0 inside.

    images: uint8 (N, 1, H, W). Sharpening keeps holes and gaps that small images have as grey alone.
    """
    x = images.float() / 255
    x = x + _SHARPENING * (x - F.avg_pool2d(x, _AROUND, 1, _AROUND // 2))
    x = F.interpolate(x, scale_factor=finer, mode="bilinear", align_corners=False)
    inside = x > images.amax((2, 3), keepdim=True).float() / 510
    return torch.where(inside, 0.5 - distances(inside), distances(~inside) - 0.5)


def distances(mask: Tensor) -> Tensor:
    """From each pixel of mask, bool (N, 1, H, W), to the nearest that is not, up to `_FAR`; 0 outside of it.

    The exact Euclidean distance, by columns and then by rows (Felzenszwalb and Huttenlocher 2012, section 3); what
    lies beyond the image counts as the mask's.
    """
    squares = torch.where(mask, _FAR**2, 0).to(torch.int16)
    for axis in (2, 3):
        size, nearest = squares.shape[axis], squares.clone()
        for k in range(1, min(_FAR, size)):
            for to, since in ((k, 0), (0, k)):
                here, there = (tensor.narrow(axis, at, size - k) for tensor, at in ((nearest, to), (squares, since)))
                torch.minimum(here, there + k * k, out=here)
        squares = nearest
    return squares.float().sqrt()
