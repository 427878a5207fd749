"""Domains of digits: strokes have the widths that are named, colours are exact, and every request has its truth."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, label
from scipy.stats import chi2
from torch import Tensor

from baselines.data import catalogue, domains
from baselines.data.dataset import Dataset
from baselines.types import ImageShape


@functools.cache
def data() -> Dataset:
    return catalogue.load("digits-domains")


def cover(images: Tensor, attributes: Tensor) -> Tensor:
    """The share of each pixel that is ink, (N, H, W), undone channel by channel from the colours' definition."""
    inks = torch.tensor(list(domains.INKS.values())).float()[attributes[:, 0]]
    grounds = torch.tensor(list(domains.GROUNDS.values())).float()[attributes[:, 1]]
    span = (inks - grounds)[..., None, None]
    parts = (images.float() - grounds[..., None, None]) / span
    return (parts * span.abs()).sum(1) / span.abs().sum(1)


def bar(width: int, side: int = 32) -> Tensor:
    """A white bar across black."""
    images = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    images[..., side // 2 - width // 2 : side // 2 - width // 2 + width] = 255
    return images


def widths_of(covers: Tensor) -> np.ndarray:
    """Stroke widths in pixels by another formula: ink over half the contour's length, of the finer half-level set."""
    found = []
    for image in torch.nn.functional.interpolate(covers[:, None], scale_factor=4, mode="bilinear")[:, 0] > 0.5:
        inner = image.numpy()
        rim = inner & (distance_transform_edt(np.pad(inner, 1, mode="edge"))[1:-1, 1:-1] <= 1.5)
        found.append(2 * inner.sum() / max(rim.sum() / 1.35, 1) / 4)
    return np.array(found)


# Strokes


def test_distances_are_those_of_an_independent_library_up_to_their_limit() -> None:
    mask = torch.rand(6, 1, 40, 33, generator=torch.Generator().manual_seed(0)) < 0.97
    assert bool((~mask).any(dim=3).any(dim=2).all())
    expected = np.stack([distance_transform_edt(image[0].numpy()) for image in mask])[:, None]
    assert expected.max() > 6
    np.testing.assert_allclose(domains.distances(mask).numpy(), expected.clip(max=12), atol=1e-6)


def test_distances_end_at_their_limit_and_the_border_is_no_edge() -> None:
    assert torch.equal(domains.distances(torch.ones(1, 1, 5, 5, dtype=torch.bool)), torch.full((1, 1, 5, 5), 12.0))
    assert not domains.distances(torch.zeros(1, 1, 5, 5, dtype=torch.bool)).any()


@pytest.mark.parametrize("drawn", [2, 3, 5])
@pytest.mark.parametrize("wanted", [1.4, 2.0, 2.7, 4.0])
def test_a_bar_gets_the_width_that_is_asked_for_but_keeps_two_fifths_of_its_own(drawn: int, wanted: float) -> None:
    found = domains.redrawn(bar(drawn), torch.tensor([[wanted]]))[0, 0]
    assert float(found[16].sum()) == pytest.approx(max(wanted, 0.4 * drawn), abs=0.3)
    assert torch.equal(found[10], found[20])


def test_each_digit_is_thinner_and_thicker_in_its_strokes_and_the_classes_hardly_overlap() -> None:
    base = catalogue.load("digits-large").val.images
    values = torch.zeros(len(base), 3, 3, dtype=torch.int64)
    values[..., 2] = torch.arange(3)
    images = domains.rendered(base, values)
    found = [widths_of(cover(images[:, k], values[:, k])) for k in range(3)]
    ink = [cover(images[:, k], values[:, k]).mean((1, 2)) for k in range(3)]
    for thinner, thicker in ((0, 1), (1, 2)):
        assert bool((ink[thinner] < ink[thicker]).all())
        assert float((ink[thicker] / ink[thinner]).mean()) > 1.3
        assert np.quantile(found[thinner], 0.95) < np.quantile(found[thicker], 0.05)


def test_thin_strokes_stay_whole() -> None:
    base = catalogue.load("digits-large").val.images
    thin, normal = domains.redrawn(base, torch.tensor([1.4, 2.7]).expand(len(base), 2)).unbind(1)
    pieces = [[label(image > 0.25, np.ones((3, 3)))[1] for image in images.numpy()] for images in (thin, normal)]
    assert np.mean(np.array(pieces[0]) <= np.array(pieces[1])) >= 0.95


# Colours


def test_pixels_are_ink_where_it_covers_all_and_ground_where_it_covers_nothing() -> None:
    base = catalogue.load("digits-large").test.images[:60]
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.tensor([2]))
    images = domains.rendered(base, grid.expand(len(base), -1, -1))
    share = domains.redrawn(base, torch.full((len(base), 1), 4.0))[:, 0]
    assert bool((share == 1).any())
    assert bool((share == 0).any())
    for k, (ink, inverted, _) in enumerate(grid.tolist()):
        pixels = images[:, k].permute(0, 2, 3, 1)
        assert pixels[share == 1].unique(dim=0).tolist() == [list(domains.INKS[domains.ATTRIBUTES["ink"][ink]])]
        assert pixels[share == 0].unique(dim=0).tolist() == [[255 * inverted] * 3]


# The splits


def test_shapes_tasks_and_names() -> None:
    found = data()
    assert found.shape == found.conditions.source == ImageShape(3, 16, 16, 256)
    assert found.conditions.choices == (4, 2, 3)
    assert "domain_translation" in found.tasks
    assert len(found.train) == 2 * len(catalogue.load("digits").train)
    assert found.train.requests is None, "in training the targets are drawn anew"
    assert found.fingerprint() == domains.of(catalogue.load("digits")).fingerprint()
    assert {"digits-domains", "mnist-domains"} <= {info.name for info in catalogue.names()}


def test_domains_are_even_independent_of_the_digit_and_of_other_renderings() -> None:
    train = data().train
    assert train.attributes is not None
    assert train.labels is not None
    number = train.attributes @ torch.tensor([6, 3, 1])
    counts = torch.bincount(number, minlength=24).double()
    expected = len(train) / 24
    assert float(((counts - expected) ** 2 / expected).sum()) < chi2.isf(1e-3, 23)
    table = torch.zeros(24, 10, dtype=torch.float64).index_put((number, train.labels), torch.ones(()).double(), True)
    even = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    assert float(((table - even) ** 2 / even).sum()) < chi2.isf(1e-3, 23 * 9)
    first, second = number.chunk(2)
    assert float((first == second).double().mean()) < 0.08


@pytest.mark.parametrize("name", ["val", "test"])
def test_requests_differ_from_what_the_image_has_and_their_answers_are_the_same_digit_with_those_values(
    name: str,
) -> None:
    split = getattr(data(), name)
    base = getattr(catalogue.load("digits-large"), name)
    asked = split.requests
    want, have = asked.given.attributes, asked.originals
    assert len(asked) == len(split)
    assert torch.equal(asked.given.images, split.images)
    assert torch.equal(have, split.attributes)
    assert torch.equal(asked.attributes, torch.cat([want, split.labels[:, None]], 1))
    changes = (want != have).double()
    assert bool(changes.any(1).all())
    # of the 23 other domains, 18 have another ink, 12 another ground, 16 another stroke
    assert changes.mean(0).tolist() == pytest.approx([18 / 23, 12 / 23, 16 / 23], abs=0.1)
    assert torch.equal(asked.answers, domains.rendered(base.images, want[:, None])[:, 0])
    assert torch.equal(split.images, domains.rendered(base.images, have[:, None])[:, 0])
    same = have[:, 2] == want[:, 2]
    shares = cover(split.images, have), cover(asked.answers, want)
    torch.testing.assert_close(shares[0][same], shares[1][same], atol=0.01, rtol=0)
    assert float((shares[0] - shares[1])[~same].abs().mean()) > 0.05


def test_the_judge_tells_real_domains_apart_and_sees_the_answers_as_what_was_asked_for() -> None:
    from bench.metrics.attributes import judge_for

    judge = judge_for("digits-domains")
    assert judge is not None
    assert judge.manifest["data_fingerprint"] == data().fingerprint()
    asked = data().test.requests
    assert asked is not None
    assert asked.answers is not None
    assert asked.attributes is not None
    told = judge.judge(asked.answers, 256)
    assert [*told] == [*domains.ATTRIBUTES, "digit"]
    right = np.stack([values.argmax(1) for values in told.values()], 1) == asked.attributes.numpy()
    assert (right.mean(0) > 0.96).all(), right.mean(0)
    assert judge.extract(asked.answers, 256).logits is not None
    classes = judge.extract(asked.answers, 256).logits.argmax(1)  # type: ignore[union-attr]
    assert (classes == asked.attributes[:, 3].numpy()).mean() > 0.96, "classes are digits, not inks"
