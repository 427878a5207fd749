"""FVSBN, NADE and MADE: what they share (inputs, outputs, steps), and each against the formulas of its paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines import checkpoint
from baselines.autoregression import Autoregressive, raster_order
from baselines.autoregressive import fvsbn, made, nade
from baselines.autoregressive.belief_net import Bernoulli, Logistics, Softmax, encode, features, output
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.data.likelihood import discretised_logistic
from baselines.errors import UserError
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

RGB = ImageShape(3, 2, 3, 5)
DOUBLE = Noise(3, dtype=torch.float64)
NAMES = ["fvsbn", "nade", "made"]
CASES: Mapping[str, Mapping[str, Any]] = {
    "softmax of one-hot": {"output": "softmax", "inputs": "levels"},
    "softmax of ladders": {"output": "softmax", "inputs": "ladder"},
    "logistics": {"output": "logistics", "components": 3, "inputs": "scaled"},
}


def small(name: str, shape: ImageShape, config: Mapping[str, Any], perturb: float = 0.3) -> Autoregressive:
    sizes: dict[str, Any] = {"nade": {"hidden": 20}, "made": {"hidden": [40, 30]}}.get(name, {})
    model = oracles.built(name, shape, {**sizes, **config}, perturb)
    assert isinstance(model, Autoregressive)
    return model


def some_images(shape: ImageShape, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=generator).to(torch.uint8)


# Inputs and outputs


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_encodings_are_what_they_say_at_the_levels(levels: int) -> None:
    x = torch.arange(levels).to(torch.uint8)
    scaled, hats, ladder = (encode(x, levels, name, torch.float64) for name in ("scaled", "levels", "ladder"))
    assert torch.equal(scaled[:, 0], torch.arange(levels, dtype=torch.float64) / (levels - 1))
    assert torch.equal(hats, torch.eye(levels, dtype=torch.float64)[:, 1:])
    assert torch.equal(ladder, torch.ones(levels, levels, dtype=torch.float64).tril()[:, 1:])
    assert [t.shape[1] for t in (scaled, hats, ladder)] == [features(levels, n) for n in ("scaled", "levels", "ladder")]


def test_encodings_of_real_numbers_lie_on_the_line_between_those_of_the_levels_beside_them() -> None:
    x = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    share = (x - x.floor())[:, None]
    for name in ("scaled", "levels", "ladder"):
        below, above = (encode(level, 5, name, torch.float64) for level in (x.floor(), x.ceil()))
        torch.testing.assert_close(encode(x, 5, name, torch.float64), (1 - share) * below + share * above)


def test_outputs_are_a_logit_a_softmax_or_logistics_by_levels_and_by_name() -> None:
    assert isinstance(output(2, "auto", 4), Bernoulli)
    assert isinstance(output(2, "softmax", 4), Bernoulli)
    assert isinstance(output(17, "auto", 4), Softmax)
    assert isinstance(output(256, "auto", 4), Logistics)
    assert isinstance(output(256, "softmax", 4), Softmax)
    assert isinstance(output(2, "logistics", 4), Logistics)
    assert [output(n, "auto", 4).numbers for n in (2, 17, 256)] == [1, 17, 12]


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("name", ["softmax", "logistics"])
def test_nats_of_an_output_are_its_log_probabilities_of_the_levels_that_are_there(name: Any, levels: int) -> None:
    head = output(levels, name, 3)
    generator = torch.Generator().manual_seed(1)
    y = 2 * torch.randn(4, head.numbers, 7, dtype=torch.float64, generator=generator)
    x = torch.randint(0, levels, (4, 7), generator=generator).to(torch.uint8)
    log_p = head.log_p(y)
    assert log_p.shape == (4, levels, 7)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4, 7, dtype=torch.float64))
    torch.testing.assert_close(head.nats(y, x), -log_p.gather(1, x.long()[:, None])[:, 0])
    torch.testing.assert_close(head.log_p(y[:, :, 0]), log_p[:, :, 0])  # of one dimension, as a step has it


def test_the_mixture_begins_with_means_that_cover_the_range_and_scales_that_stop_at_minus_7() -> None:
    head = Logistics(256, 4)
    x = torch.arange(256)
    at_first = head.log_p(torch.zeros(1, 12, 1, dtype=torch.float64))[0, :, 0].exp()
    means, log_scale = torch.tensor([-0.75, -0.25, 0.25, 0.75]).double(), torch.tensor(-1.0).double()
    parts = torch.stack([discretised_logistic(x, mean, log_scale, 256).exp() for mean in means])
    torch.testing.assert_close(at_first, parts.mean(0))
    narrow = torch.zeros(1, 12, 1, dtype=torch.float64)
    narrow[:, 8:] = -50
    parts = torch.stack([discretised_logistic(x, mean, torch.tensor(-7.0).double(), 256).exp() for mean in means])
    torch.testing.assert_close(head.log_p(narrow)[0, :, 0].exp(), parts.mean(0))


# All three of them


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_with_every_output_and_input_probabilities_sum_to_one_and_the_sampler_follows_them(
    name: str, case: str
) -> None:
    model = small(name, ImageShape(3, 1, 2, 3), CASES[case])
    p = oracles.probabilities(model)
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    found = oracles.sampler_distance(model, p, 20_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    assert float(p.std() / p.mean()) > 0.3, "premise: far from uniform"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_with_every_output_and_input_steps_equal_the_naive_sampler_bit_for_bit(name: str, case: str) -> None:
    model = small(name, RGB, CASES[case])
    naive = model.sample(16, Draw("naive"), DOUBLE)
    assert len(naive.unique()) == RGB.levels, "premise: every level occurs"
    assert torch.equal(model.sample(16, Draw(), DOUBLE), naive)


@pytest.mark.parametrize(("name", "passes"), [("fvsbn", 0.51), ("nade", 1.001), ("made", 1.001)])
def test_an_image_by_steps_costs_no_more_multiplications_than_one_pass(name: str, passes: float) -> None:
    """Of a FVSBN half of it, since it leaves the masked half out; a NADE's pass is linear in D by itself."""
    shape = ImageShape(1, 8, 8, 17)
    model = small(name, shape, {"inputs": "ladder"})
    uniform = DOUBLE.uniform("pixels", 4, shape.chw)
    with FlopCounterMode(display=False) as drawn:
        model.draw(uniform)
    if name == "nade":
        whole = 2 * 4 * 64 * 20 * (16 + 17)  # W x and V h
    else:
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            model.log_conditionals(some_images(shape, 4))
        whole = counted.get_total_flops()
    assert 0.2 * whole < drawn.get_total_flops() <= passes * whole


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_and_not_in_evaluation(name: str) -> None:
    model = small(name, RGB, {"input_dropout": 0.5})
    x = some_images(RGB, 3)
    assert torch.equal(model.dimension_nats(x), model.dimension_nats(x))
    model.train()
    assert not torch.equal(model.dimension_nats(x), model.dimension_nats(x))


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_is_decoupled_and_left_out_where_there_is_none(name: str) -> None:
    assert small(name, RGB, {"weight_decay": 0.0}).phases()[0].optimiser.name == "adam"
    optimiser = small(name, RGB, {"weight_decay": 0.1}).phases()[0].optimiser
    assert (optimiser.name, optimiser.weight_decay) == ("adamw", 0.1)


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        *[(name, {"components": 0}, "expected components >= 1, got 0") for name in NAMES],
        *[(name, {"input_dropout": 1.0}, r"expected input_dropout in \[0, 1\), got 1") for name in NAMES],
        *[(name, {"weight_decay": -1.0}, "expected weight_decay >= 0, got -1") for name in NAMES],
        ("nade", {"hidden": 0}, "nade: expected hidden >= 1, got 0"),
        ("nade", {"dropout": 1.0}, r"nade: expected dropout in \[0, 1\), got 1"),
        ("made", {"hidden": []}, r"made: expected at least one hidden layer of width >= 1, got \[\]"),
        ("made", {"hidden": [3, 0]}, r"made: expected at least one hidden layer of width >= 1, got \[3, 0\]"),
        ("made", {"dropout": -0.1}, r"made: expected dropout in \[0, 1\), got -0.1"),
        ("made", {"order": "snake"}, "order"),
    ],
)
def test_bad_settings_are_told(name: str, wrong: Mapping[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_config({"fvsbn": fvsbn, "nade": nade, "made": made}[name].Config, wrong, name)


# Each against its paper, on two levels


def sigmoid(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


def log_bernoulli(x: np.ndarray, p: np.ndarray) -> float:
    return float(np.log(np.where(x == 1, p, 1 - p)).sum())


def test_an_fvsbn_of_two_levels_is_the_logistic_autoregression_of_its_paper() -> None:
    """log P(x) = sum_k log of sigmoid(b_k + sum_{j<k} W_kj x_j), or of what it leaves to 1."""
    model = small("fvsbn", oracles.BINARY, {}, perturb=1.0)
    assert isinstance(model, fvsbn.Fvsbn)
    w, b = (p.detach().numpy() for p in (model.net.last.weight, model.net.last.bias))
    images = oracles.all_images(oracles.BINARY)
    nats = model.nats(images, "exact", DOUBLE).total.detach().numpy()
    for image, found in zip(images.flatten(1).numpy()[::17], nats[::17], strict=True):
        p = np.array([sigmoid(b[k] + sum(w[k, j] * image[j] for j in range(k))) for k in range(9)])
        assert -log_bernoulli(image, p) == pytest.approx(found, rel=1e-12)
    assert sum(p.numel() for p in model.parameters()) == 81 + 9


def test_an_fvsbn_of_more_levels_is_softmax_regression_on_what_came_before() -> None:
    shape = ImageShape(1, 1, 4, 3)
    model = small("fvsbn", shape, {"inputs": "levels"}, perturb=1.0)
    assert isinstance(model, fvsbn.Fvsbn)
    w = model.net.last.weight.detach().numpy().reshape(4, 3, 4, 2)  # (k, its level, j, its level but 0)
    b = model.net.last.bias.detach().numpy().reshape(4, 3)
    for image, p in zip(oracles.all_images(shape).flatten(1).tolist(), oracles.probabilities(model), strict=True):
        expected = 1.0
        for k in range(4):
            logits = b[k] + sum(w[k, :, j, image[j] - 1] for j in range(k) if image[j] > 0)
            expected *= float(np.exp(logits)[image[k]] / np.exp(logits).sum())
        assert float(p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_a_nade_of_two_levels_is_the_recursion_of_its_paper(activation: str) -> None:
    model = small("nade", oracles.BINARY, {"activation": activation, "hidden": 7}, perturb=1.0)
    assert isinstance(model, nade.Nade)
    w, v, b, c = (p.detach().numpy() for p in (model.net.w, model.net.v, model.net.b, model.net.c))
    images = oracles.all_images(oracles.BINARY)
    nats = model.nats(images, "exact", DOUBLE).total.detach().numpy()
    for image, found in zip(images.flatten(1).numpy()[::17], nats[::17], strict=True):
        a, p = c, np.zeros(9)
        for k in range(9):
            h = sigmoid(a) if activation == "sigmoid" else np.maximum(a, 0)
            p[k] = sigmoid(b[k, 0] + v[k, :, 0] @ h)
            a = a + w[k, 0] * image[k]
        assert -log_bernoulli(image, p) == pytest.approx(found, rel=1e-12)


def test_a_made_of_two_levels_is_the_masked_network_of_its_paper() -> None:
    """Two hidden layers and direct connections, every weight asked by its degrees."""
    model = small("made", oracles.BINARY, {"direct": True}, perturb=1.0)
    assert isinstance(model, made.Made)
    degrees = [list(range(1, 10)), [1 + i * 8 // 40 for i in range(40)], [1 + i * 8 // 30 for i in range(30)]]
    first, second = (layer for layer in model.net.hidden)
    assert model.net.direct is not None

    def masked(layer: Any, into: list[int], out: list[int], strict: bool) -> np.ndarray:
        w: np.ndarray = layer.weight.detach().numpy().copy()
        for i, above in enumerate(out):
            for j, below in enumerate(into):
                if below > above or (strict and below == above):
                    w[i, j] = 0
        return w

    w1, w2 = masked(first, degrees[0], degrees[1], False), masked(second, degrees[1], degrees[2], False)
    v, a = masked(model.net.last, degrees[2], degrees[0], True), masked(model.net.direct, degrees[0], degrees[0], True)
    layers: list[Any] = [first, second, model.net.last, model.net.direct]
    b1, b2, c, d = (layer.bias.detach().numpy() for layer in layers)
    images = oracles.all_images(oracles.BINARY)[::17]
    nats = model.nats(images, "exact", DOUBLE).total.detach().numpy()
    for image, found in zip(images.flatten(1).numpy().astype(float), nats, strict=True):
        h = np.maximum(w2 @ np.maximum(w1 @ image + b1, 0) + b2, 0)
        p = sigmoid(v @ h + c + a @ image + d)
        assert -log_bernoulli(image, p) == pytest.approx(found, rel=1e-9)


# NADE's training


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize(("dims", "levels"), [(19, 2), (5, 4), (3, 17)])
def test_a_nade_in_training_has_the_values_and_gradients_that_autograd_has(
    dims: int, levels: int, activation: str
) -> None:
    """Its blocks' own backward pass against plain differentiation; blocks that do not divide D, one, many features."""
    shape = ImageShape(1, 1, dims, levels)
    model = small("nade", shape, {"activation": activation, "inputs": "ladder", "dropout": 0.0})
    x, weight = some_images(shape, 6), torch.randn(6, *shape.chw, dtype=torch.float64)
    found = []
    for mode in (True, False):
        model.train(mode)
        nats = model.dimension_nats(x)
        found.append((nats.detach(), *torch.autograd.grad((nats * weight).sum(), list(model.parameters()))))
    for ours, plain in zip(*found, strict=True):
        assert float(ours.abs().max()) > 0
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_dropout_of_a_nade_has_the_right_gradient_and_is_of_whole_units_of_an_image() -> None:
    model = small("nade", ImageShape(1, 1, 11, 3), {"dropout": 0.5, "activation": "sigmoid", "inputs": "scaled"})
    assert isinstance(model, nade.Nade)
    model.train()
    net, x = model.net, torch.rand(3, 11, 1, dtype=torch.float64)

    def outputs(*parameters: Tensor) -> Tensor:
        torch.manual_seed(0)
        y: Tensor = torch.func.functional_call(net, dict(zip("wcvb", parameters, strict=True)), (x,))
        return y

    values = tuple(p.detach().clone().requires_grad_() for p in (net.w, net.c, net.v, net.b))
    assert torch.autograd.gradcheck(outputs, values)
    torch.manual_seed(0)
    keep = net.dropout(torch.ones(3, 20, dtype=torch.float64))
    before = torch.stack([net.c + torch.einsum("bj,jh->bh", x[:, :k, 0], net.w[:k, 0]) for k in range(11)], 1)
    expected = torch.einsum("bkh,bh,khp->bpk", before.sigmoid(), keep, net.v) + net.b.T
    torch.testing.assert_close(outputs(*values), expected)


def test_training_a_nade_keeps_no_hidden_layer_of_every_dimension() -> None:
    shape, batch, hidden = ImageShape(1, 28, 28, 2), 10, 50
    model = small("nade", shape, {"hidden": hidden}).train()
    weights = sum(p.numel() for p in model.parameters())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
        return tensor

    def beside_the_weights() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.dimension_nats(some_images(shape, batch))
        return sum(kept.values()) - weights

    whole = batch * shape.dims * hidden
    assert beside_the_weights() < 0.3 * whole
    model.eval()
    assert beside_the_weights() >= whole, "premise: plain differentiation keeps all of it"


# MADE's order


@pytest.mark.parametrize("shape", [RGB, ImageShape(1, 4, 4, 2)], ids=str)
def test_a_random_order_is_of_pixels_and_everything_follows_it(shape: ImageShape) -> None:
    model = small("made", shape, {"hidden": [200, 200], "order": "random", "order_seed": 3})
    order = model.order
    assert not torch.equal(order, raster_order(shape)), "premise: another order"
    assert torch.equal(order.sort().values, torch.arange(shape.dims))
    pixels = order.view(-1, shape.channels) % (shape.height * shape.width)
    assert bool((pixels == pixels[:, :1]).all()), "the colours of a pixel stand together"
    assert torch.equal(order.view(-1, shape.channels) // (shape.height * shape.width), _colours(shape))
    found, rank = oracles.dependence(model, bases=8), order.argsort()
    assert oracles.leaks(found, rank) == 0
    assert oracles.context_fraction(found, rank) == 1
    assert torch.equal(model.sample(8, Draw(), DOUBLE), model.sample(8, Draw("naive"), DOUBLE))


def _colours(shape: ImageShape) -> Tensor:
    return torch.arange(shape.channels).expand(shape.height * shape.width, -1)


def test_the_seed_of_the_order_makes_it_and_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    one, other = (small("made", RGB, {"order": "random", "order_seed": seed}) for seed in (0, 1))
    assert not torch.equal(one.order, other.order)
    assert torch.equal(one.order, small("made", RGB, {"order": "random"}, perturb=0.5).order)
    checkpoint.save(tmp_path, "model", one.state_dict(), {})
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    other.load_state_dict(loaded[0])
    assert torch.equal(other.order, one.order)
    assert torch.equal(other.sample(4, Draw(), DOUBLE), one.sample(4, Draw(), DOUBLE))
