"""The share of the context that is used, of models whose dependence is written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.autoregression import Autoregressive
from baselines.contract import Given, Noise
from baselines.data import markov_mesh
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics import context
from bench.metrics.base import Subject
from bench.metrics.context import ContextFraction, context_of, jacobian


class Linear(Autoregressive):
    """Logits of two levels that are linear in the pixels for which `matrix` (D, D) is not 0."""

    def __init__(self, shape: ImageShape, matrix: Tensor) -> None:
        super().__init__()
        self.shape, self.matrix = shape, matrix

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        logit = (x.float().flatten(1) @ self.matrix.T).view(-1, 1, *self.shape.chw)
        return torch.cat([torch.zeros_like(logit), logit], 1).log_softmax(1)


@pytest.fixture(scope="module")
def mesh() -> Dataset:
    return markov_mesh.load()


def matrix(allowed: str) -> Tensor:
    """Which of 64 pixels bear on which: those before; the one before; the eight before; or one later as well."""
    whole = torch.full((64, 64), 0.1).tril(-1)
    if allowed == "one":
        return whole.triu(-1)
    if allowed == "eight":
        return whole.triu(-8)
    return whole + torch.eye(64).roll(1, 1).triu() if allowed == "later" else whole


@pytest.mark.parametrize(
    ("allowed", "share"), [("all", 1.0), ("one", 63 / 2016), ("eight", (28 + 56 * 8) / 2016)], ids=str
)
def test_the_share_is_that_of_the_pixels_that_bear_on_a_conditional(mesh: Dataset, allowed: str, share: float) -> None:
    subject = Subject(0, mesh, model=Linear(mesh.shape, matrix(allowed)))
    assert ContextFraction().unavailable(subject) is None
    (found,) = ContextFraction().measure(subject)
    assert (found.metric, found.scope, found.better) == ("context_fraction", "train", "higher")
    assert found.value == pytest.approx(share)


def test_fewer_conditionals_give_nearly_the_same_share(mesh: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "DIMENSIONS", 16)
    (found,) = ContextFraction().measure(Subject(0, mesh, model=Linear(mesh.shape, matrix("eight"))))
    assert found.n == 16
    assert found.value == pytest.approx((28 + 56 * 8) / 2016, rel=0.15)


def test_a_conditional_that_sees_a_later_pixel_is_refused(mesh: Dataset) -> None:
    with pytest.raises(UserError, match="63 conditionals depend on a pixel that is drawn with them or later"):
        ContextFraction().measure(Subject(0, mesh, model=Linear(mesh.shape, matrix("later"))))


def test_the_map_of_a_pixel_is_the_mean_size_of_its_gradient(mesh: Dataset) -> None:
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).tril(-1)
    model, x = Linear(mesh.shape, weights), mesh.test.images[:10]
    place = 4 * 8 + 4
    near = torch.where(x.float() < 1, x.float() + 0.25, x.float() - 0.25)
    one = torch.sigmoid(near.flatten(1) @ weights[place])
    slope = torch.where(x.flatten(1)[:, place] == 1, 1 - one, one)  # |d log p / d logit|
    wanted = (slope[:, None] * weights[place].abs()).mean(0).view(8, 8)
    torch.testing.assert_close(context_of(model, x, place), wanted)
    subject = Subject(0, mesh, model=model)
    ContextFraction().measure(subject)
    assert subject.maps["context"]["place"] == [4, 4]
    assert torch.tensor(subject.maps["context"]["values"]).shape == (8, 8)


def test_rows_of_the_jacobian_do_not_depend_on_which_are_taken_together(mesh: Dataset) -> None:
    model, image = Linear(mesh.shape, matrix("all")), mesh.test.images[0]
    whole = jacobian(model, image, torch.arange(64))
    torch.testing.assert_close(jacobian(model, image, torch.tensor([5, 40])), whole[[5, 40]])


def test_models_without_an_order_are_told_apart(mesh: Dataset) -> None:
    assert "no order of pixels" in str(ContextFraction().unavailable(Subject(0, mesh)))
    assert "no test images" in str(ContextFraction().unavailable(Subject(0)))


def test_completions_keep_the_upper_half_and_the_first_pixel_is_set(mesh: Dataset) -> None:
    class Drawn(Linear):
        """Draws naively: the formula has no quicker way."""

        draw = Linear.draw_naively

    real = mesh.test.images[:7]
    strips = Drawn(mesh.shape, matrix("eight")).pictures(real, Noise(1))
    completed, started = strips
    assert [s.title for s in strips] == ["Completions", "The same numbers, another first pixel"]
    rows = completed.images
    torch.testing.assert_close(rows[:, 0], real[:5])
    for column in range(1, rows.shape[1]):
        assert torch.equal(rows[:, column, :, :4], real[:5, :, :4])
    assert not rows[:, 1, :, 4:].any()
    assert not torch.equal(rows[:, 2], rows[:, 3]), "completions differ"
    assert not started.images[:, 1, 0, 0, 0].any()
    assert bool((started.images[:, 2, 0, 0, 0] == 1).all())
    differ = started.images[:, 1] != started.images[:, 2]
    assert torch.equal(started.images[:, 3].bool(), differ)
    assert f"{float(differ.float().mean()):.0%} of the pixels" in started.caption
