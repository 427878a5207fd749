"""Scores of codes: reconstruction, distance to the prior, and a shift against an erasure, on models that are known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from baselines import registry
from baselines.contract import Draw, GenerativeModel, Given, HasPrior, Noise, Reconstructs
from baselines.data import digits
from baselines.data.dataset import Dataset, Split
from baselines.types import Budget, ImageShape
from bench.job import Setup
from bench.matrix import Wanted
from bench.metrics import latent_mmd
from bench.metrics.base import Subject
from bench.metrics.displacement import Displacement, changed, windows
from bench.metrics.latent_mmd import LatentMmd, latent_map
from bench.metrics.mmd_rbf import median_distance
from bench.metrics.reconstruction_mse import Reconstruction
from bench.plan import plan
from bench.stats import normal_interval
from bench.worker import run_job

DATA = digits.load()


class Known(GenerativeModel, HasPrior, Reconstructs):
    """Codes that are normal numbers about `mean`, each image's by its pixels; reconstructions off by `off` levels."""

    def __init__(self, mean: float = 0.0, off: int = 0, latent: int = 3) -> None:
        super().__init__()
        self.mean, self.off, self.latent = mean, off, latent

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        seeds = [int((image.flatten().long() * torch.arange(1, 1 + image.numel())).sum()) for image in x]
        rows = [torch.randn(self.latent, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows) + self.mean / math.sqrt(self.latent)

    def prior(self, n: int, noise: Noise) -> Tensor:
        return noise.normal("z", n, (self.latent,))

    def reconstruct(self, x: Tensor) -> Tensor:
        return torch.where(x >= self.off, x - self.off, x + self.off)


class Plain(Known):
    """Codes that are the pixels themselves, from 0 to 1."""

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() / 16


class Ink(Known):
    """Codes that count levels and know no place: a shift of images with an empty border changes nothing."""

    def encode(self, x: Tensor) -> Tensor:
        return torch.stack([(x == level).flatten(1).sum(1) for level in range(17)], 1).double()


def subject(model: GenerativeModel, data: Dataset = DATA) -> Subject:
    return Subject(0, data, model=model)


# Reconstruction


@pytest.mark.parametrize("off", [0, 1, 4])
def test_the_error_of_a_reconstruction_is_that_of_images_so_many_levels_off(off: int) -> None:
    (found,) = Reconstruction().measure(subject(Known(off=off)))
    assert found.value == pytest.approx((off / 16) ** 2)
    assert (found.metric, found.n, found.better) == ("reconstruction_mse", 360, "lower")
    mean = DATA.train.images.double().mean(0)
    alone = float(((DATA.test.images.double() - mean) / 16).square().mean())
    assert f"{alone:.3g}" in found.note


def test_a_reconstruction_that_knows_nothing_reads_twice_the_variance_and_the_interval_holds_the_mean() -> None:
    class Shuffled(Known):
        def reconstruct(self, x: Tensor) -> Tensor:
            return x.roll(1, 0)

    (found,) = Reconstruction().measure(subject(Shuffled()))
    variance = float((DATA.test.images.double() / 16).var(0).mean())
    assert found.value == pytest.approx(2 * variance, rel=0.1)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.high - found.low < 0.1 * found.value


# Distance of codes from the prior


def test_codes_that_follow_the_prior_read_zero_within_the_interval_and_as_chance_does() -> None:
    (found,) = LatentMmd().measure(subject(Known()))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.01
    assert "two sets of 360 draws" in found.note


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_codes_beside_the_prior_read_the_closed_form_of_two_gaussians(shift: float) -> None:
    model = Known(mean=shift)
    (found,) = LatentMmd().measure(subject(model))
    s2 = median_distance(model.prior(360, Noise(0)).double().numpy()) ** 2
    assert math.sqrt(s2) == pytest.approx(math.sqrt(2 * stats.chi2.ppf(0.5, 3)), rel=0.05)
    alike = (s2 / (s2 + 2)) ** 1.5  # E k(x, x') of two draws of N(0, I) in 3 dimensions
    truth = 2 * alike * (1 - math.exp(-(shift**2) / (2 * (s2 + 2))))
    assert found.high is not None
    error = (found.high - found.value) / (normal_interval(0, 1)[1])
    assert found.value == pytest.approx(truth, abs=4 * error)
    assert found.value > 2 * error, "the premise: it is told from zero"


def test_it_is_unbiased_and_its_interval_widens_with_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_mmd, "IMAGES", 40)
    monkeypatch.setattr(latent_mmd, "FLOORS", 1)
    values, widths = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(17, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
        data = Dataset("noise", DATA.shape, Split(x), Split(x), Split(x), "generated", "")
        (found,) = LatentMmd().measure(Subject(seed, data, model=Known()))
        assert found.high is not None
        values.append(found.value)
        widths.append(found.high - found.value)
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / math.sqrt(40))
    assert min(values) < 0 < max(values)
    (whole,) = LatentMmd().measure(subject(Known()))
    assert whole.n == 40
    assert min(widths) > 0


def test_a_prior_that_is_a_single_point_is_told() -> None:
    class Point(Known):
        def prior(self, n: int, noise: Noise) -> Tensor:
            return torch.zeros(n, 3)

    assert LatentMmd().unavailable(subject(Point())) == "all draws of the prior are the same"


def test_the_map_holds_the_codes_their_classes_and_draws_of_the_prior() -> None:
    held = subject(Known(latent=2))
    LatentMmd().measure(held)
    np.testing.assert_allclose(held.latent_map["points"], Known(latent=2).encode(DATA.test.images), rtol=1e-3)
    assert DATA.test.labels is not None
    assert held.latent_map["labels"] == DATA.test.labels.tolist()
    assert np.asarray(held.latent_map["prior"]).std() == pytest.approx(1, abs=0.1)
    assert (held.latent_map["latent"], held.latent_map["share"]) == (2, None)


def test_codes_of_many_dimensions_are_seen_along_their_principal_axes() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    flat = rng.standard_normal((500, 5)) * [3, 2, 0.1, 0.1, 0.1]
    made = latent_map(flat @ turn + 7, flat[:100] @ turn + 7, None)
    points = np.asarray(made["points"])
    centred = flat - flat.mean(0)
    for axis in (0, 1):
        assert abs(np.corrcoef(points[:, axis], centred[:, axis])[0, 1]) > 0.99
        assert points[:, axis].std() == pytest.approx(centred[:, axis].std(), rel=0.01)
    np.testing.assert_allclose(made["prior"], points[:100], atol=1e-2, err_msg="the same axes and centre for both")
    assert made["share"] == pytest.approx(13 / 13.03, abs=0.005)
    line = latent_map(flat[:, :1], flat[:9, :1], None)
    assert np.asarray(line["points"]).shape == (500, 2)


# A shift against an erasure


def test_windows_are_those_that_a_search_over_all_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    cost, limit = torch.rand(20, 6, 7, generator=generator).double(), torch.rand(20, generator=generator).double() * 5
    masks, found = windows(cost, limit)
    for i in range(20):
        best = 0.0
        for side in (1, 2, 3):
            for top, left in itertools.product(range(6 - side + 1), range(7 - side + 1)):
                value = float(cost[i, top : top + side, left : left + side].sum())
                best = max(best, value if value <= float(limit[i]) else 0.0)
        assert float(found[i]) == pytest.approx(best)
        assert float((cost[i] * masks[i]).sum()) == pytest.approx(best)


def test_the_shift_is_by_a_pixel_and_the_erased_image_is_always_the_nearer_in_pixels() -> None:
    x = DATA.test.images[:100]
    pairs = changed(x, DATA.shape)
    assert len(pairs.images) == 100
    assert torch.equal(pairs.shifted[..., 1:], x[..., :-1])
    assert int(pairs.shifted[..., 0].max()) == 0, "the border of digits is empty in the median"
    gone = pairs.erased != x
    assert bool((pairs.erased[gone] == 0).all())
    assert int(gone.flatten(2).any(2).sum()) == 100
    rows = gone[:, 0].any(2).sum(1)
    assert int(rows.max()) <= 4, "at most half a side"
    far = (pairs.shifted.double() - x.double()).flatten(1).norm(dim=1)
    near = (pairs.erased.double() - x.double()).flatten(1).norm(dim=1)
    assert bool((near <= far).all())


def test_codes_that_are_pixels_read_the_same_ratio_and_codes_without_places_turn_the_order_round() -> None:
    held = subject(Plain())
    pixels, codes = Displacement().measure(held)
    assert pixels.value > 1
    assert (pixels.value, pixels.low, pixels.high) == pytest.approx((codes.value, codes.low, codes.high))
    assert "nearer in 0%" in codes.note
    inner = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    inner[..., 2:6, 2:6] = torch.randint(1, 17, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    data = Dataset("inner", DATA.shape, Split(inner), Split(inner), Split(inner), "generated", "")
    pixels, codes = Displacement().measure(subject(Ink(), data))
    assert pixels.value > 1
    assert codes.value < 1e-6
    assert "nearer in 100%" in codes.note


def test_the_strip_tells_the_distances_of_each_row_and_the_means_of_all() -> None:
    held = subject(Plain())
    Displacement().measure(held)
    (strip,) = held.strips
    x = strip.images.double()[:, :, 0] / 16
    far, near = ((x[:, i] - x[:, 0]).flatten(1).norm(dim=1) for i in (1, 2))
    for i, row in enumerate(strip.rows):
        assert row.startswith(f"pixels {float(far[i]):.2g} / {float(near[i]):.2g}, codes")
        assert len(row) <= 40
    assert "over 200 test images" in strip.caption
    assert "codes" in strip.caption


def test_images_of_any_colours_can_be_changed_and_those_without_a_picture_are_left_out() -> None:
    shape = ImageShape(3, 6, 9, 256)
    x = torch.randint(256, (5, 3, 6, 9), generator=torch.Generator().manual_seed(0)).byte()
    x[2] = 7
    pairs = changed(x, shape)
    assert len(pairs.images) == 4
    assert pairs.erased.shape == (4, 3, 6, 9)
    flat = Dataset("flat", shape, Split(x), Split(x), Split(torch.full_like(x, 7)), "generated", "")
    assert "2 test images" in (Displacement().unavailable(subject(Plain(), flat)) or "")


@pytest.mark.parametrize("metric", [Reconstruction(), LatentMmd(), Displacement()], ids=lambda m: m.name)
def test_models_without_codes_are_told_why(metric: Reconstruction | LatentMmd | Displacement) -> None:
    from baselines.reference.histogram import Config, Histogram

    assert metric.unavailable(subject(Known())) is None
    assert metric.unavailable(subject(Histogram(DATA.shape, Config())))
    assert metric.unavailable(Subject(0, None, model=Known()))


def test_the_record_of_a_training_holds_scores_map_and_strips_and_says_that_the_autoencoder_is_a_control(
    tmp_path: Path,
) -> None:
    setup = Setup(tmp_path, "cpu", metrics=("reconstruction_mse", "latent_mmd", "shift_over_erasure"))
    told = {}
    for name in ("ae", "aae"):
        wanted = Wanted(name, "digits", 0, Budget(images=128), {"width": 8, "widest": 16}, (Draw(),), (None,))
        (training,) = plan([wanted], setup)
        record = run_job((training.job, None), lambda sent: None)
        names = {"reconstruction_mse", "latent_mmd", "shift_over_erasure[pixels]", "shift_over_erasure[codes]"}
        assert names <= {m.metric for m in record.measured}
        roles = [artifact.role for artifact in record.artifacts]
        assert roles.count("latent_map") == 1
        assert roles.count("strip") == 4
        (found,) = (m for m in record.measured if m.metric == "latent_mmd")
        told[name] = found.protocol["subject"].get("control")
        title = registry.load(name).model.title
        assert ("control" in title) == (name == "ae")
    assert "not a generative model" in str(told["ae"])
    assert told["aae"] is None
