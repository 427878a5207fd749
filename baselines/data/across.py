"""Digits of one collection to those of another: a translation between two domains that have no true pairs.

Sources are the enlarged digits of scikit-learn (16x16, 256 levels), targets are MNIST's brought to the same size: the
frame of two pixels, which holds a four-hundredth of the ink, is cut off and the 24x24 that are left are averaged by
area, each new pixel over 1.5 x 1.5 old ones.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from baselines.data import enlarged
from baselines.data.dataset import Dataset, Split
from baselines.data.outline import classes_of, unpaired
from baselines.data.splitting import stratified_order
from baselines.types import Conditions, ImageShape

FRAME = 2  # pixels at each side of MNIST that are cut off


def averaged(images: Tensor, height: int, width: int) -> Tensor:
    """uint8 (N, C, H, W) of 256 levels to (N, C, height, width), each pixel the mean over the area that it covers."""
    down, across = (_shares(old, new) for old, new in zip(images.shape[2:], (height, width), strict=True))
    return (down @ images.double() @ across.T).round().to(torch.uint8)


def _shares(old: int, new: int) -> Tensor:
    """(new, old) float64: which share of new pixel i is old pixel j."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    pixel = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return overlap.clamp(min=0) * new / old


def of(sources: Dataset, targets: Dataset) -> Dataset:
    """`digits-to-mnist`: images and labels are MNIST's; what is given are the other collection's digits."""
    large = enlarged.of(sources)
    shape = ImageShape(large.shape.channels, large.shape.height, large.shape.width, 256)
    train, val, test = (
        _split(getattr(targets, name), enlarged.MOST[name], shape, getattr(large, name), scored=name != "train")
        for name in enlarged.MOST
    )
    return Dataset(
        name=f"{sources.name}-to-{targets.name}",
        shape=shape,
        train=train,
        val=val,
        test=test,
        source=f"{targets.source}; what is given: {sources.source}",
        note=f"{targets.name} averaged to {shape.height}x{shape.width}; test {len(test)}, val {len(val)}, train "
        f"{len(train)}; {targets.note}; given are digits of {large.name} of the same split ({large.note})",
        classes=targets.classes,
        tasks=frozenset({"unconditional", "translation"}),
        conditions=Conditions(source=shape),
    )


def _split(split: Split, most: int, shape: ImageShape, given: Split, scored: bool) -> Split:
    """Targets, the first `most` in stratified hash order, with the sources; where it is scored with their classes."""
    assert split.labels is not None
    index = torch.from_numpy(stratified_order(split.labels.numpy())[:most]).sort().values
    images = split.images[index][..., FRAME:-FRAME, FRAME:-FRAME]
    targets = Split(averaged(images, shape.height, shape.width), split.labels[index])
    requests = unpaired(given.images)
    if scored:
        requests = dataclasses.replace(requests, attributes=classes_of(given))
    return dataclasses.replace(targets, attributes=classes_of(targets), requests=requests)
