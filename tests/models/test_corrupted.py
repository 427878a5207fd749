"""The corruptions of real images do what they say, against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from baselines import trainer
from baselines.contract import Draw, Noise
from baselines.data import digits
from baselines.data.dataset import Dataset, Split
from baselines.errors import UserError
from baselines.reference.corrupted import Config, Corrupted, gaussian_blur
from baselines.reference.real import Config as RealConfig
from baselines.reference.real import Real
from baselines.types import ImageShape

FINE = ImageShape(1, 8, 8, 256)


def draw(kind: str, level: float) -> Draw:
    return Draw(options={"kind": kind, "level": level})


def fitted(images: Tensor, labels: Tensor | None = None, shape: ImageShape = FINE) -> Corrupted:
    model = Corrupted(shape, Config())
    model.fit_labelled(images, labels, Noise(0))
    return model


@pytest.fixture(scope="module")
def of_digits() -> tuple[Corrupted, Dataset]:
    data = digits.load()
    model = Corrupted(data.shape, Config())
    trainer.fit(model, data, 0)
    return model, data


def test_noise_has_the_stated_deviation_where_nothing_is_clamped() -> None:
    model = fitted(torch.full((4, *FINE.chw), 128, dtype=torch.uint8))
    x = model.sample(400, draw("noise", 0.05), Noise(3)).double()
    sigma = 0.05 * 255
    assert 128 - 9 * sigma > 0, "the premise: no pixel reaches an end of the range"
    n = x.numel()
    rounded = sigma**2 + 1 / 12  # rounding adds the variance of a uniform number
    assert float(x.var()) == pytest.approx(rounded, abs=4 * rounded * math.sqrt(2 / n))
    assert float(x.mean()) == pytest.approx(128, abs=4 * sigma / math.sqrt(n))


def test_the_blur_of_a_delta_is_a_gaussian_of_that_width_and_edges_are_as_scipys() -> None:
    delta = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    delta[0, 0, 15, 15] = 1
    spot = gaussian_blur(delta, 1.7)[0, 0]
    place = torch.arange(31, dtype=torch.float64) - 15
    assert float(spot.sum()) == pytest.approx(1)
    assert float((spot.sum(0) * place**2).sum()) == pytest.approx(1.7**2, rel=2e-3)
    torch.testing.assert_close(spot, spot.T)
    x = torch.rand(3, 2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sigma in (0.4, 1.0, 3.0):  # the last one reaches beyond the whole image
        theirs = ndimage.gaussian_filter1d(x.numpy(), sigma, axis=2, mode="reflect", radius=math.ceil(4 * sigma))
        theirs = ndimage.gaussian_filter1d(theirs, sigma, axis=3, mode="reflect", radius=math.ceil(4 * sigma))
        np.testing.assert_allclose(gaussian_blur(x, sigma).numpy(), theirs, rtol=1e-10)


@pytest.mark.parametrize("dropped", [1, 3])
def test_dropped_classes_are_absent_and_the_others_are_all_there(dropped: int) -> None:
    labels = torch.arange(40) % 5
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *FINE.chw)  # each shows its class
    model = fitted(images, labels)
    shown = model.sample(40, draw("dropped", dropped), Noise(7))[:, 0, 0, 0].unique()
    assert len(shown) == 5 - dropped
    more = model.sample(40, draw("dropped", dropped + 1), Noise(7))[:, 0, 0, 0].unique()
    assert set(more.tolist()) < set(shown.tolist()), "a larger level drops the same classes and one more"
    with pytest.raises(UserError, match="fewer than the data's 5 classes, got 5"):
        model.sample(1, draw("dropped", 5), Noise(7))


def test_copies_are_at_most_so_many_distinct_images_drawn_with_replacement(
    of_digits: tuple[Corrupted, Dataset],
) -> None:
    model, data = of_digits
    few = model.sample(400, draw("copies", 12), Noise(1))
    found, counts = torch.unique(few, dim=0, return_counts=True)
    assert len(found) == 12, "400 draws of 12 leave none out"
    assert counts.min() < counts.max(), "with replacement: not each as often"
    known = {image.numpy().tobytes() for image in data.development}
    assert {image.numpy().tobytes() for image in few} <= known
    everything = model.sample(1437, draw("copies", 10**6), Noise(1))
    share = len(torch.unique(everything, dim=0)) / 1437
    assert share == pytest.approx(1 - 1 / math.e, abs=0.03), "a bootstrap holds 63 % of its images"


def test_uncorrupted_images_are_those_of_the_floor(of_digits: tuple[Corrupted, Dataset]) -> None:
    model, data = of_digits
    floor = Real(data.shape, RealConfig())
    floor.fit(data.development, Noise(0))
    expected = floor.sample(50, Draw(), Noise(5, first=20))
    for plain in (Draw(), draw("noise", 0), draw("blur", 0), draw("dropped", 0)):
        assert torch.equal(model.sample(50, plain, Noise(5, first=20)), expected)


@pytest.mark.parametrize("kind", ["noise", "blur", "dropped", "copies"])
def test_image_i_does_not_depend_on_the_batch(kind: str, of_digits: tuple[Corrupted, Dataset]) -> None:
    model, _ = of_digits
    chosen, noise = draw(kind, 0.3 if kind == "noise" else 1), Noise(2)
    whole = model.sample(9, chosen, noise)
    parts = [model.sample(n, chosen, noise.at(first)) for first, n in ((0, 4), (4, 1), (5, 4))]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "noise"}, "expected kind and level"),
        ({"kind": "nois", "level": 1}, "expected one of noise, blur, dropped, copies, got 'nois'"),
        ({"kind": "noise", "level": "much"}, "expected a number"),
        ({"kind": "noise", "level": -0.1}, "expected 0 or more"),
        ({"kind": "noise", "level": math.nan}, "expected a number"),
        ({"kind": "dropped", "level": 1.5}, "a whole number, 0 or more"),
        ({"kind": "copies", "level": 0}, "a whole number, 1 or more"),
        ({"kind": "copies", "level": True}, "expected a number"),
    ],
)
def test_options_that_are_no_corruption_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Corrupted.check_draw(Config(), Draw(options=options))  # type: ignore[arg-type]


def test_other_settings_are_refused_and_labels_are_needed_for_dropping() -> None:
    with pytest.raises(UserError, match="takes no eta"):
        Corrupted.check_draw(Config(), Draw(eta=0.5))
    model = fitted(torch.zeros(4, *FINE.chw, dtype=torch.uint8))
    with pytest.raises(UserError, match="0 classes"):
        model.sample(2, draw("dropped", 1), Noise(0))


def test_a_labelled_fit_gets_the_labels_of_the_images_that_it_sees() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    splits = [Split(images[i : i + 2], torch.arange(i, i + 2)) for i in (0, 2, 4)]
    data = Dataset("toy", ImageShape(1, 1, 1), *splits, "here", "none")
    model = Corrupted(data.shape, Config())
    trainer.fit(model, data, 0)
    assert torch.equal(model.labels, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(model.images.flatten().long(), model.labels)
