"""Outlines against an independent formula, and domains that share no digit in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from baselines.data import across, catalogue, outline
from baselines.data.dataset import Dataset, Split
from baselines.types import Conditions, ImageShape


@pytest.fixture(scope="module")
def data() -> Dataset:
    return catalogue.load("digits-outline")


@pytest.fixture(scope="module")
def filled() -> Dataset:
    return catalogue.load("digits-large")


def pixels(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def by_scipy(image: np.ndarray) -> np.ndarray:
    """Interpolated along rows and columns, cut at half, dilated and eroded, averaged over blocks of 4x4."""
    places = (np.arange(4 * len(image)) + 0.5) / 4 - 0.5
    for _ in range(2):
        image = np.stack([np.interp(places, np.arange(len(row)), row) for row in image.T])
    ink, square = image >= 128, np.ones((5, 5))
    band = ndimage.binary_dilation(ink, square) ^ ndimage.binary_erosion(ink, square)
    return band.reshape(len(image) // 4, 4, -1, 4).mean((1, 3)) * 255


def test_outlines_are_a_digits_dilation_less_its_erosion(filled: Dataset) -> None:
    found = outline.outlines(filled.test.images[:12])
    noise = torch.randint(0, 256, (4, 1, 9, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for ours, image in [
        *zip(found, filled.test.images, strict=False),
        *zip(outline.outlines(noise), noise, strict=True),
    ]:
        np.testing.assert_allclose(ours[0].numpy(), by_scipy(image[0].double().numpy()), atol=0.5)


def test_a_squares_outline_is_a_band_of_one_pixel_with_anti_aliased_corners() -> None:
    square = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    square[..., 4:12, 4:12] = 255
    found = outline.outlines(square)[0, 0]
    assert found[8, 2:6].tolist() == [0, 128, 128, 0]
    # interpolation takes one of 16 fine pixels off each corner (5/8 of the ink by 5/8 is below half)
    assert found[3, 3] == round((4 - 1) / 16 * 255), "dilation's corner, outside"
    assert found[4, 4] == round((12 + 1) / 16 * 255), "what erosion leaves, inside"
    assert float(found.sum()) == pytest.approx((36**2 - 28**2) / 16 * 255, rel=0.01)


def test_nothing_has_no_outline_and_a_full_frame_has_one_at_its_edge() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    empty, full = outline.outlines(ends)
    assert int(empty.max()) == 0
    assert int(full[0, 1:-1, 1:-1].max()) == 0
    assert int(full[0, 0, 1:-1].min()) == 128


def test_no_digit_is_seen_in_both_domains_and_both_have_all_classes_in_their_shares(
    data: Dataset, filled: Dataset
) -> None:
    requests = data.train.requests
    assert requests is not None
    assert requests.given.images is not None
    assert data.train.labels is not None
    assert filled.train.labels is not None
    sources = pixels(requests.given.images)
    others = [i for i, image in enumerate(filled.train.images) if image.numpy().tobytes() not in sources]
    assert len(sources) + len(others) == len(filled.train)
    assert torch.equal(outline.outlines(filled.train.images[others]), data.train.images)
    assert torch.equal(filled.train.labels[others], data.train.labels)
    shares = torch.bincount(filled.train.labels) / 2
    assert float((torch.bincount(data.train.labels) - shares).abs().max()) <= 1


def test_training_is_told_no_answers_and_scores_are(data: Dataset, filled: Dataset) -> None:
    requests = data.train.requests
    assert requests is not None
    assert not requests.aligned
    assert requests.answers is None
    assert requests.attributes is None
    for name in ("val", "test"):
        split, source = getattr(data, name), getattr(filled, name)
        assert torch.equal(split.requests.given.images, source.images)
        assert torch.equal(split.requests.answers, outline.outlines(source.images))
        assert torch.equal(split.images, split.requests.answers), "the target domain is what samples are compared with"
        assert torch.equal(split.requests.attributes[:, 0], source.labels)
        assert not pixels(split.images) & pixels(data.train.images)


def test_outlines_are_far_from_what_they_are_made_of(data: Dataset) -> None:
    requests = data.test.requests
    assert requests is not None
    assert requests.answers is not None
    assert requests.given.images is not None
    gap = (requests.answers.double() - requests.given.images).abs().mean() / 255
    assert 0.2 < float(gap) < 0.25
    assert data.conditions == Conditions(source=data.shape)
    assert {"translation", "unconditional"} == data.tasks


# Digits of two collections


def test_averaging_keeps_the_mean_and_agrees_with_blocks_where_they_fit() -> None:
    images = torch.randint(0, 256, (5, 1, 24, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    small = across.averaged(images, 16, 16)
    doubled = images.double().repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(small.double(), F.avg_pool2d(doubled, 3), rtol=0, atol=0.5)
    assert float(small.double().mean()) == pytest.approx(float(images.double().mean()), abs=0.1)
    assert torch.equal(across.averaged(images, 24, 24), images)
    blocks = F.avg_pool2d(images.double(), 2)
    torch.testing.assert_close(across.averaged(images, 12, 12).double(), blocks, rtol=0, atol=0.5)


def test_targets_are_the_one_collection_and_sources_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = ImageShape(1, 28, 28, 256)
    images = torch.randint(0, 256, (40, *shape.chw), generator=generator).to(torch.uint8)
    split = Split(images, torch.arange(40) % 10)
    written = Dataset("written", shape, split, split, split, "here", "none", classes=10)
    digits = catalogue.load("digits")
    data, large = across.of(digits, written), catalogue.load("digits-large")
    assert data.name == "digits-to-written"
    assert data.shape == large.shape
    assert torch.equal(data.train.images, across.averaged(images[..., 2:-2, 2:-2], 16, 16))
    assert torch.equal(data.train.labels, split.labels)  # type: ignore[arg-type]
    for name in ("train", "val", "test"):
        requests = getattr(data, name).requests
        assert torch.equal(requests.given.images, getattr(large, name).images)
        assert requests.answers is None
        assert not requests.aligned
        assert (requests.attributes is None) == (name == "train")
    assert torch.equal(data.test.requests.attributes[:, 0], large.test.labels)  # type: ignore[union-attr]
