"""R-precision: one for a generator that does as told, a hundredth for noise, and captions that say the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from baselines.contract import Given
from baselines.given import Requests
from bench.metrics import attributes, r_precision
from bench.metrics.base import Array, Subject
from bench.metrics.r_precision import RPrecision, joint, mismatched, ranked_first
from tests.metrics.test_attributes import Reader, drawn, subject_of

CHOICES = (4, 3)


class Blind(Reader):
    """Says the same of all images."""

    def judge(self, images: Tensor, levels: int) -> dict[str, Array]:
        return {name: np.log(np.full((len(images), k), 1 / k)) for name, k in zip(("ink", "ground"), CHOICES)}  # noqa: B905


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "judge_for", lambda dataset: Reader())
    monkeypatch.setattr(r_precision, "judge_for", lambda dataset: Reader())


@pytest.fixture
def wanted() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(k, (3000,), generator=generator) for k in CHOICES], 1)


def measured(subject: Subject) -> dict[str, float]:
    metric = RPrecision()
    assert metric.unavailable(subject) is None
    return {m.metric: m.value for m in metric.measure(subject)}


def test_a_generator_that_does_as_told_has_one(wanted: Tensor) -> None:
    unseen = wanted[:, 0] == 1
    found = measured(subject_of(drawn(wanted), wanted, unseen))
    assert found == {"r_precision[all]": 1, "r_precision[unseen]": 1}


def test_a_judge_that_tells_nothing_gives_a_hundredth(monkeypatch: pytest.MonkeyPatch, wanted: Tensor) -> None:
    """All hundred captions are equally likely, and chance decides."""
    monkeypatch.setattr(attributes, "judge_for", lambda dataset: Blind())
    metric = RPrecision()
    (m,) = metric.measure(subject_of(drawn(wanted), wanted))
    assert m.low is not None
    assert m.high is not None
    assert m.low < 0.01 < m.high < 0.03


def test_images_that_show_something_else_are_never_first(wanted: Tensor) -> None:
    """Of 12 combinations each that is not the own one is among 99 captions, but for one time in thousands."""
    shown = (wanted + 1) % torch.tensor(CHOICES)
    assert measured(subject_of(drawn(shown), wanted))["r_precision[all]"] < 0.005


def test_noise_in_the_judge_gives_a_hundredth_whatever_is_asked() -> None:
    """Scores of unequal captions that say nothing of the image: the own one is first by chance."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((20_000, 100))
    share = ranked_first(scores[:, 0], scores[:, 1:], rng).mean()
    assert share == pytest.approx(0.01, abs=4 * np.sqrt(0.01 * 0.99 / 20_000))


def test_the_share_of_a_noisy_judge_is_the_integral_that_it_should_be() -> None:
    """own ~ N(2, 1) among 99 of N(0, 1): the integral of phi(x - 2) Phi(x)^99."""
    rng = np.random.default_rng(1)
    own, others = rng.standard_normal(40_000) + 2, rng.standard_normal((40_000, 99))
    x = np.linspace(-6, 10, 4001)
    normal = multivariate_normal(0, 1)
    wanted = np.trapezoid(normal.pdf(x - 2) * normal.cdf(x) ** 99, x)
    assert ranked_first(own, others, rng).mean() == pytest.approx(wanted, abs=0.01)


def test_ties_are_broken_evenly() -> None:
    rng = np.random.default_rng(2)
    own, others = np.zeros(30_000), np.zeros((30_000, 2))
    assert ranked_first(own, others, rng).mean() == pytest.approx(1 / 3, abs=0.015)
    assert not ranked_first(own, others + np.array([0.0, 1e-9]), rng).any()


def test_the_joint_log_probability_is_the_sum_over_attributes() -> None:
    parts = [np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), np.log([[0.25, 0.75], [0.6, 0.4]])]
    values = np.array([[[0, 0], [2, 1]], [[2, 0], [1, 1]]])
    np.testing.assert_allclose(np.exp(joint(parts, values)), [[0.125, 0.15], [0.48, 0.04]])


def test_mismatched_captions_never_say_the_same_and_are_drawn_evenly() -> None:
    rng = np.random.default_rng(3)
    pool = np.stack([np.arange(60) % 5, np.arange(60) % 3], 1)
    own = np.tile(pool[:1], (4000, 1))
    found = mismatched(own, pool, 20, rng)
    assert found.shape == (4000, 20)
    assert not (pool[found] == own[:, None]).all(2).any()
    assert all(len(set(row)) == 20 for row in found.tolist())
    allowed = np.flatnonzero((pool != pool[0]).any(1))
    counts = np.bincount(found.ravel(), minlength=60)[allowed]
    assert len(allowed) == 56
    np.testing.assert_allclose(counts / 4000, 20 / 56, atol=0.04)
    with pytest.raises(ValueError, match="expected 57 captions that say something else, got 56"):
        mismatched(own, pool, 57, rng)


def test_captions_that_say_the_same_do_not_count_against_an_image() -> None:
    """With 12 combinations a caption of equal meaning would be among 99 others almost always, and tie."""
    values = torch.cartesian_prod(torch.arange(4), torch.arange(3)).repeat(40, 1)
    assert measured(subject_of(drawn(values), values))["r_precision[all]"] == 1


def test_it_is_the_same_again_and_says_why_it_cannot_be_taken(wanted: Tensor) -> None:
    noisy = wanted[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(1))]
    subject = subject_of(drawn(noisy), wanted)
    assert measured(subject) == measured(subject_of(drawn(noisy), wanted))
    few = subject_of(drawn(wanted[:100]), wanted[:100])
    assert "needs 99 mismatched captions for each image, got" in (RPrecision().unavailable(few) or "")
    subject.requests = Requests(Given(labels=wanted[:, 0]), attributes=wanted)
    assert RPrecision().unavailable(subject) == "the model was given no captions"
    subject.requests = None
    assert RPrecision().unavailable(subject) == "the model was asked for no attributes"
