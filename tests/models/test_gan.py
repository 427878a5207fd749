"""The original GAN: the values of its games, the gradient at the start in closed form, and one dimension."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, nn

from baselines import trainer
from baselines.contract import Batch, Context, Noise
from baselines.data import catalogue
from baselines.errors import UserError
from baselines.gans.gan import REJECTIONS, Config, Gan, Maxout, gradient_norms
from baselines.gans.in_one_dimension import DEVIATION, MEAN, Moment, moving_onto, play
from baselines.gans.losses import (
    OBJECTIVES,
    Objective,
    classification_error,
    discriminator_loss,
    discriminator_objective,
    generator_objective,
    generator_slope,
)
from baselines.types import Budget, ImageShape

DIGITS = ImageShape(1, 8, 8, 17)
SHAPES = {"digits": DIGITS, "binary": ImageShape(1, 3, 3, 2), "rgb": ImageShape(3, 5, 17, 256)}


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def batch_of(shape: ImageShape, n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8))


# The objectives


def test_each_objective_is_its_formula_of_the_verdicts() -> None:
    real, fake = torch.tensor([2.0, -0.3, 0.5]), torch.tensor([-1.0, 0.7, 3.0])
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    logistic = -d_real.log().mean() - (1 - d_fake).log().mean()
    error = (1 - d_real).mean() / 2 + d_fake.mean() / 2
    for objective, of_d, of_g in (
        ("minimax", logistic, (1 - d_fake).log().mean()),
        ("non_saturating", logistic, -d_fake.log().mean()),
        ("classification_error", error, -d_fake.mean() / 2),
    ):
        torch.testing.assert_close(discriminator_objective(objective, real, fake).total, of_d)
        torch.testing.assert_close(generator_objective(objective, fake).total, of_g)


def test_minimax_and_the_classification_error_are_zero_sum_games_up_to_what_g_does_not_see() -> None:
    """What D pays on generated images is what G gains, for each of the two games that have a value."""
    real, fake = torch.randn(9), torch.randn(9)
    for objective in ("minimax", "classification_error"):
        parts = discriminator_objective(objective, real, fake).parts
        torch.testing.assert_close(generator_objective(objective, fake).total, -parts["fake"])


@pytest.mark.parametrize("q", [[4, 3, 2, 1], [1, 2, 3, 4], [5, 3, 1, 1], [0, 0, 5, 5]])
def test_the_least_classification_error_is_half_of_what_total_variation_leaves(q: list[int]) -> None:
    p = [4, 3, 2, 1]
    points = torch.arange(4)
    real, fake = points.repeat_interleave(torch.tensor(p)), points.repeat_interleave(torch.tensor(q))
    variation = np.abs(np.array(p) - np.array(q)).sum() / 20
    verdicts = np.stack(np.meshgrid(*[[-40.0, 0.0, 40.0]] * 4), -1).reshape(-1, 4)  # D of 0, 1/2 and 1 at each point
    errors = [classification_error(torch.tensor(v)[real], torch.tensor(v)[fake]).total.item() for v in verdicts]
    assert min(errors) == pytest.approx((1 - variation) / 2, abs=1e-12)
    best = torch.tensor(np.where(np.array(p) > np.array(q), 40.0, -40.0))
    assert classification_error(best[real], best[fake]).total.item() == pytest.approx(min(errors), abs=1e-12)


# The gradient at the start


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_slope_by_the_logit_is_autograds(objective: Objective) -> None:
    logits = torch.linspace(-30, 30, 121, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(len(logits) * generator_objective(objective, logits).total, logits)
    torch.testing.assert_close(generator_slope(objective, logits.detach()), slope, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("network", ["perceptron", "convolutional"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_of_gs_weights_follows_the_closed_form(objective: Objective, network: str) -> None:
    torch.manual_seed(0)
    model = Gan(DIGITS, Config(network=network, hidden=32, width=8)).double()  # type: ignore[arg-type]
    with torch.no_grad():  # as good as equal verdicts, for which the closed form is exact
        last = [layer for layer in model.discriminator.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight.mul_(1e-4)
    measured = gradient_norms(model, objective, tuple(map(float, REJECTIONS)), Noise(3, dtype=torch.float64))
    closed = generator_slope(objective, -torch.tensor(REJECTIONS, dtype=torch.float64)).abs()
    np.testing.assert_allclose(measured, closed.numpy(), rtol=1e-3)


def test_only_the_non_saturating_loss_keeps_its_gradient_where_d_is_sure() -> None:
    torch.manual_seed(1)
    model = Gan(DIGITS, Config())
    at = {o: gradient_norms(model, o, (0.0, 10.0), Noise(3)) for o in OBJECTIVES}
    assert at["minimax"][0] == pytest.approx(0.5, rel=0.1)
    assert at["minimax"][1] < 1e-4
    assert at["classification_error"][1] < 1e-4
    assert at["non_saturating"][1] == pytest.approx(1, rel=0.1)


def test_the_charts_are_the_same_each_time_and_leave_the_model_and_the_generator_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("baselines.gans.in_one_dimension.STEPS", 10)
    monkeypatch.setattr("baselines.gans.in_one_dimension.SHOWN", (0, 10))
    model = Gan(DIGITS, Config(hidden=16)).eval()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    charts, again = (model.charts(batch_of(DIGITS).images, Noise(2)) for _ in range(2))
    assert charts == again
    first = charts[0]
    assert first.log_y
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert {line.label for line in first.panels[0].lines if line.marks} == {
        f"{o.replace('_', ' ')}, autograd" for o in OBJECTIVES
    }


def test_a_discriminator_that_is_wrong_and_sure_learns_by_logarithms_and_not_by_the_classification_error() -> None:
    slopes = {}
    for objective in OBJECTIVES:
        fake = torch.tensor([12.0], dtype=torch.float64, requires_grad=True)
        discriminator_objective(objective, torch.zeros(1, dtype=torch.float64), fake).total.backward()
        assert fake.grad is not None
        slopes[objective] = float(fake.grad)
    d, other = 1 / (1 + math.exp(-12)), 1 / (1 + math.exp(12))
    assert slopes["minimax"] == slopes["non_saturating"] == pytest.approx(d)
    assert slopes["classification_error"] == pytest.approx(d * other / 2)


# One dimension


@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
def test_p_g_moves_onto_p_data_while_d_flattens_to_a_half(objective: Objective) -> None:
    moments = play(objective, 0)
    first, last = moments[0], moments[-1]
    assert first.distance > 0.8, "the premise: they begin apart"
    assert first.unevenness > 0.4, "the premise: D tells them apart"
    assert last.distance < 0.03
    assert last.unevenness < 0.02
    assert (last.scale, last.offset) == (pytest.approx(DEVIATION, abs=0.03), pytest.approx(MEAN, abs=0.03))


def test_the_moments_numbers_are_integrals_over_the_two_normals() -> None:
    moment = Moment(0, 0.8, -0.5, torch.linspace(0, 1, 161, dtype=torch.float64))
    data, generated = norm(MEAN, DEVIATION), norm(-0.5, 0.8)
    between, _ = quad(lambda x: abs(data.pdf(x) - generated.pdf(x)) / 2, -4, 4, limit=200)
    assert moment.distance == pytest.approx(between, abs=1e-3)
    uneven, _ = quad(lambda x: data.pdf(x) * abs((x + 4) / 8 - 0.5), -4, 4, limit=200)
    assert moment.unevenness == pytest.approx(uneven, abs=1e-3)
    x = np.linspace(-4, 4, 161)
    np.testing.assert_allclose(moment.best.numpy(), data.pdf(x) / (data.pdf(x) + generated.pdf(x)), atol=1e-9)


def test_the_figure_tells_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = torch.full((161,), 0.5, dtype=torch.float64)
    made = (Moment(0, 0.7, -1.5, flat), Moment(9, DEVIATION, MEAN, flat))
    monkeypatch.setattr("baselines.gans.in_one_dimension.play", lambda objective, seed: made)
    chart = moving_onto("minimax", 0)
    assert [panel.title for panel in chart.panels] == ["step 0", "step 9"]
    lines = {line.label: line for line in chart.panels[1].lines}
    assert lines["p_data"].y == lines["p_g"].y
    assert set(lines["best D"].y) == {0.5}
    assert f"{made[0].distance:.2g} to 0" in chart.caption


# The networks


def test_a_maxout_unit_is_the_largest_of_its_linear_maps() -> None:
    layer, x = Maxout(5, 4, 3), torch.randn(7, 5)
    pieces = x @ layer.maps.weight.T + layer.maps.bias
    expected = torch.stack([pieces[:, 3 * unit : 3 * unit + 3].max(1).values for unit in range(4)], 1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("network", ["perceptron", "convolutional"])
def test_images_of_any_shape_are_made_and_judged_each_by_itself(shape: ImageShape, network: str) -> None:
    model = Gan(shape, Config(network=network, hidden=16, width=8)).eval()  # type: ignore[arg-type]
    assert not [m for m in model.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    images = model.generator(torch.randn(4, model.latent))
    assert images.shape == (4, *shape.chw)
    verdicts = model.discriminator(images)
    assert verdicts.shape == (4,)
    torch.testing.assert_close(model.discriminator(images[:1]), verdicts[:1])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("network", ["perceptron", "convolutional"])
def test_a_step_of_each_network_lowers_its_own_loss(objective: Objective, network: str) -> None:
    torch.manual_seed(0)
    config = Config(objective, network, dropout=0.0)  # type: ignore[arg-type]
    model, batch = Gan(DIGITS, config), batch_of(DIGITS, 64)
    for phase in model.phases():
        parameters = [p for name in phase.modules for p in model.get_submodule(name).parameters()]
        before = phase.loss(batch, context()).total
        gradients = torch.autograd.grad(before, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1e-3 * gradient
        assert float(phase.loss(batch, context()).total.detach()) < float(before.detach())


def test_the_discriminator_learns_k_times_for_each_time_of_the_generator(tmp_path: Path) -> None:
    digits = catalogue.load("digits")
    model = Gan(digits.shape, Config(discriminator_steps=3, hidden=8))
    run = trainer.Trainer(model, digits, 0, Budget(images=64 * 3 * 4), tmp_path)
    run.run()
    steps = {name: int(o.state_dict()["state"][0]["step"]) for name, o in run.optimisers.items()}
    assert steps == {"discriminator": 12, "generator": 4}


def test_at_equal_distributions_the_logistic_game_is_at_two_ln_two() -> None:
    logits = torch.zeros(6)
    assert discriminator_loss(logits, logits).total.item() == pytest.approx(2 * math.log(2))
    assert classification_error(logits, logits).total.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"objective": "least_squares"}, {"network": "transformer"}, {"hidden": 0}, {"dropout": 1.0}, {"latent": 0}],
    ids=str,
)
def test_bad_choices_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"gan\.{next(iter(wrong))}: expected"):
        Config(**wrong)  # type: ignore[arg-type]


def grad_of(model: Gan, loss: Tensor) -> dict[str, float]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in model.named_parameters()}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_reaches_all_of_g_and_d_has_its_own(objective: Objective) -> None:
    torch.manual_seed(0)
    model = Gan(DIGITS, Config(objective=objective))
    of_g = grad_of(model, model.generator_loss(batch_of(DIGITS, 32), context()).total)
    assert all(size > 0 for name, size in of_g.items() if name.startswith("generator"))
    of_d = grad_of(model, model.discriminator_loss(batch_of(DIGITS, 32), context()).total)
    assert all((size > 0) == name.startswith("discriminator") for name, size in of_d.items())
