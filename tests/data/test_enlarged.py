"""Digits made larger keep their picture: what was drawn lies where it lay, and nothing else is added."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from baselines.data import catalogue, enlarged
from baselines.types import ImageShape


def test_small_images_double_their_sides_and_keep_the_mean_away_from_the_border() -> None:
    data = catalogue.load("digits-large")
    small = catalogue.load("digits")
    assert data.shape == ImageShape(1, 16, 16, 256)
    assert torch.equal(data.train.labels, small.train.labels)  # type: ignore[arg-type]
    blocks = F.avg_pool2d(data.test.images.double(), 2)
    levels = small.test.images.double() * (255 / 16)
    # half-pixel centres: a block of four is 9/16 the pixel itself, 6/16 its neighbours at the sides, 1/16 the corners
    kernel = torch.tensor([0.125, 0.75, 0.125], dtype=torch.float64)
    kernel = (kernel[:, None] * kernel).view(1, 1, 3, 3)
    expected = F.conv2d(F.pad(levels, (1, 1, 1, 1), mode="replicate"), kernel)
    torch.testing.assert_close(blocks, expected, rtol=0, atol=0.5)


def test_larger_images_are_framed_and_not_changed() -> None:
    images = torch.randint(0, 256, (3, 1, 28, 30), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    framed = enlarged.enlarged(images, 256)
    assert framed.shape == (3, 1, 32, 32)
    assert torch.equal(framed[..., 2:30, 1:31], images)
    assert int(framed.sum()) == int(images.sum())


def test_levels_become_256_with_both_ends() -> None:
    ends = torch.tensor([0, 16], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    assert enlarged.enlarged(ends, 17).flatten(1).unique(dim=1).flatten().tolist() == [0, 255]


def test_names_are_listed_and_misspelt_ones_are_told() -> None:
    listed = {info.name for info in catalogue.names()}
    assert {"digits-large", "mnist-large"} <= listed
