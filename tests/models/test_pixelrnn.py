"""PixelRNN: the recursions are those of the paper, by a slow walk from pixel to pixel; what each pixel sees."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn import functional as F

from baselines.autoregressive import pixelrnn_diagonal, pixelrnn_row
from baselines.autoregressive.lattice import arranged, diagonal_order, diagonals, lattice_lstm, rows
from baselines.autoregressive.lstm import MaskedLinear, PixelRnn
from baselines.autoregressive.pixelrnn_diagonal import DiagonalLayer
from baselines.autoregressive.pixelrnn_row import RowLayer
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.errors import UserError
from baselines.nets.masked import colour_groups
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

RGB = ImageShape(3, 3, 4, 5)
WIDE, TALL = ImageShape(1, 3, 6, 4), ImageShape(1, 6, 2, 4)
NAMES = ["pixelrnn_row", "pixelrnn_diagonal"]

States = dict[tuple[int, int], Tensor]


def small(name: str, shape: ImageShape, seed: int = 0, **config: object) -> PixelRnn:
    model = oracles.built(name, shape, {"width": 12, "layers": 2, **config}, 0.3, seed)
    assert isinstance(model, PixelRnn)
    return model


def row_layer(shape: ImageShape) -> RowLayer:
    layer = small("pixelrnn_row", shape).net.layers[1]
    assert isinstance(layer, RowLayer)
    return layer


def diagonal_layer(shape: ImageShape) -> DiagonalLayer:
    layer = small("pixelrnn_diagonal", shape).net.layers[1]
    assert isinstance(layer, DiagonalLayer)
    return layer


def equation_three(gates: Tensor, cell: Tensor | float) -> tuple[Tensor, Tensor]:
    """Of one pixel's four gates, in the order of the paper: h and c."""
    o, f, i, g = gates.chunk(4, -1)
    c = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def by_rows(layer: RowLayer, x: Tensor) -> Tensor:
    """The Row LSTM pixel by pixel; x (H, W, B, 2h)."""
    height, width, batch, _ = x.shape
    half = len(layer.narrow)
    zeros = torch.zeros(batch, half, dtype=x.dtype)
    hidden: States = {}
    cells: States = {}
    allowed = (layer.wide[:, None] <= layer.narrow.repeat(4)[None]).to(x.dtype)
    taps = layer.above.view(3, half, 4 * half)
    for r in range(height):
        for c in range(width):
            gates = layer.centre.bias + x[r, c] @ (layer.centre.weight.T * allowed)
            if c > 0:
                gates = gates + x[r, c - 1] @ layer.left
            for tap, beside in enumerate((c - 1, c, c + 1)):
                gates = gates + hidden.get((r - 1, beside), zeros) @ taps[tap]
            hidden[r, c], cells[r, c] = equation_three(gates, cells.get((r - 1, c), zeros))
    return torch.stack([hidden[r, c] for r in range(height) for c in range(width)])


def by_diagonals(layer: DiagonalLayer, x: Tensor) -> Tensor:
    """The Diagonal BiLSTM pixel by pixel; x (H, W, B, 2h)."""
    height, width, batch, _ = x.shape
    half = len(layer.narrow)
    zeros = torch.zeros(batch, half, dtype=x.dtype)
    allowed = (layer.wide[:, None] <= layer.narrow.repeat(4)[None]).to(x.dtype)
    found: list[States] = []
    for direction, step in enumerate((1, -1)):
        hidden: States = {}
        cells: States = {}
        inputs, (beside, above) = layer.inputs[direction], layer.before[direction].view(2, half, 4 * half)
        assert isinstance(inputs, MaskedLinear)
        for r in range(height):
            for c in range(width)[::step]:
                gates = inputs.bias + x[r, c] @ (inputs.weight.T * allowed)
                gates = gates + hidden.get((r, c - step), zeros) @ beside + hidden.get((r - 1, c), zeros) @ above
                hidden[r, c], cells[r, c] = equation_three(gates, cells.get((r, c - step), zeros))
        found.append(hidden)
    left, right = found
    return torch.stack([left[r, c] + right.get((r - 1, c), zeros) for r in range(height) for c in range(width)])


@pytest.mark.parametrize("shape", [WIDE, TALL, RGB, ImageShape(1, 1, 4, 2), ImageShape(1, 4, 1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["row", "diagonal"])
def test_a_layer_equals_the_recursion_from_pixel_to_pixel(kind: str, shape: ImageShape) -> None:
    layer: RowLayer | DiagonalLayer = row_layer(shape) if kind == "row" else diagonal_layer(shape)
    columns = shape.width + (pixelrnn_diagonal.MARGIN if kind == "diagonal" else 0)
    x = torch.randn(shape.height, columns, 3, len(layer.wide), dtype=torch.float64)
    slow = by_rows(layer, x) if isinstance(layer, RowLayer) else by_diagonals(layer, x)
    assert float(slow.detach().std()) > 0.05, "premise: the states differ"
    torch.testing.assert_close(layer.states(x.flatten(0, 1)), slow, rtol=1e-12, atol=1e-12)


def test_skewing_gives_the_same_states_with_the_columns_of_a_skewed_map() -> None:
    """The paper's own form: a map of height x (height + width - 1), a 2x1 convolution down each of its columns."""
    height, width, half = 4, 5, 3
    gates = torch.randn(height, width, 2, 4 * half, dtype=torch.float64)
    weight = torch.randn(2, half, 4 * half, dtype=torch.float64)
    skewed = torch.zeros(height, height + width - 1, 2, 4 * half, dtype=torch.float64)
    for r in range(height):
        skewed[r, r : r + width] = gates[r]
    h = c = torch.zeros(height, 2, half, dtype=torch.float64)
    columns = []
    for column in range(height + width - 1):
        kernel = h @ weight[0] + F.pad(h, (0, 0, 0, 0, 1, 0))[:-1] @ weight[1]
        h, c = equation_three(skewed[:, column] + kernel, c)
        columns.append(h)
    unskewed = torch.stack([torch.stack(columns, 1)[r, r : r + width] for r in range(height)]).flatten(0, 1)
    order = diagonal_order(height, width)
    fast = lattice_lstm(gates.flatten(0, 1)[order][None], weight.view(1, 2 * half, -1), diagonals(height, width))
    torch.testing.assert_close(fast[0][order.argsort()], unskewed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(3, 4), (4, 2), (1, 3), (3, 1)])
def test_diagonals_go_through_every_pixel_once_and_the_flipped_ones_are_those_of_the_mirrored_image(
    size: tuple[int, int],
) -> None:
    height, width = size
    order, flipped = diagonal_order(height, width), diagonal_order(height, width, flipped=True)
    assert order.sort().values.tolist() == list(range(height * width))
    for step, diagonal in zip(diagonals(height, width), range(height + width - 1), strict=True):
        pixels = [divmod(int(p), width) for p in order[step.begin : step.end]]
        assert pixels == [(r, diagonal - r) for r in range(height) if 0 <= diagonal - r < width]
    assert torch.equal(flipped, order // width * width + width - 1 - order % width)


@pytest.mark.parametrize(
    ("plan", "directions", "taps"),
    [(rows(3, 4), 1, 3), (rows(2, 1), 1, 3), (diagonals(3, 4), 2, 2), (diagonals(4, 2), 2, 2), (diagonals(1, 1), 1, 2)],
)
def test_the_written_gradient_is_that_of_finite_differences(plan: object, directions: int, taps: int) -> None:
    assert isinstance(plan, tuple)
    gates = torch.randn(directions, plan[-1].end, 2, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(directions, 2 * taps, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: lattice_lstm(a, b, plan), (gates, weight))


def test_a_jacobian_of_all_states_at_once_is_that_of_one_after_the_other() -> None:
    gates, weight = torch.randn(1, 6, 2, 8, dtype=torch.float64), torch.randn(1, 4, 8, dtype=torch.float64)

    def states(g: Tensor) -> Tensor:
        return lattice_lstm(g, weight, diagonals(2, 3))

    each = torch.autograd.functional.jacobian(states, gates)
    torch.testing.assert_close(jacrev(states)(gates), each)


def test_a_second_derivative_is_an_error_and_not_a_wrong_number() -> None:
    gates = torch.randn(1, 6, 2, 8, dtype=torch.float64, requires_grad=True)
    states = lattice_lstm(gates, torch.randn(1, 4, 8, dtype=torch.float64), diagonals(2, 3))
    (grad,) = torch.autograd.grad(states.square().sum(), gates, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.square().sum().backward()


def test_an_arrangement_has_the_gradient_of_indexing() -> None:
    orders = torch.stack([torch.randperm(6) for _ in range(2)])
    x, y = (torch.arange(12.0).view(6, 2).requires_grad_() for _ in range(2))
    weights = torch.randn(2, 6, 2)
    found = arranged(x, orders, orders.argsort(1))
    assert torch.equal(found, y[orders])
    (found * weights).sum().backward()
    (y[orders] * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


# What a pixel sees


def pixels_seen(model: PixelRnn, bases: int = 4) -> Callable[[int, int], set[tuple[int, int]]]:
    """The places on which the conditional of the grey pixel (row, column) depends, itself left out."""
    height, width = model.shape.height, model.shape.width
    found = oracles.dependence(model, bases).view(height, width, height, width)

    def at(row: int, column: int) -> set[tuple[int, int]]:
        return {(r, c) for r, c in found[row, column].nonzero().tolist() if (r, c) != (row, column)}

    return at


def test_the_row_lstm_sees_a_triangle_above_and_one_pixel_more_to_the_left_with_each_layer() -> None:
    shape = ImageShape(1, 6, 9, 5)
    seen = pixels_seen(small("pixelrnn_row", shape, first_kernel=3, layers=2, width=24))
    for row in range(6):
        for column in range(9):
            assert seen(row, column) == _triangle(shape, row, column, layers=2), (row, column)


def _triangle(shape: ImageShape, row: int, column: int, layers: int) -> set[tuple[int, int]]:
    """A layer sees the states in a triangle above, each with its inputs at c - 1 and c; then a 3x3 kernel of mask A."""
    places = {(row, column)}
    for _ in range(layers):
        places = {(r - up, c + aside) for r, c in places for up in range(r + 1) for aside in range(-up, up + 1)}
        places |= {(r, c - 1) for r, c in places}
        places = {(r, c) for r, c in places if 0 <= c < shape.width}
    places = {(r - 1, c + aside) for r, c in places for aside in (-1, 0, 1)} | {(r, c - 1) for r, c in places}
    return {(r, c) for r, c in places if r >= 0 and 0 <= c < shape.width}


@pytest.mark.parametrize("shape", [ImageShape(1, 5, 9, 5), ImageShape(1, 9, 4, 5), ImageShape(1, 1, 6, 3)], ids=str)
def test_one_diagonal_layer_sees_all_that_precedes_a_pixel(shape: ImageShape) -> None:
    seen = pixels_seen(small("pixelrnn_diagonal", shape, first_kernel=3, layers=1, width=24))
    for row in range(shape.height):
        for column in range(shape.width):
            before = [divmod(place, shape.width) for place in range(row * shape.width + column)]
            assert seen(row, column) == set(before), (row, column)


def test_without_the_column_beyond_the_edge_the_last_pixel_of_the_row_above_would_be_hidden() -> None:
    shape = ImageShape(1, 3, 8, 5)
    model = small("pixelrnn_diagonal", shape, first_kernel=3, layers=2, width=24)
    columns = shape.width + pixelrnn_diagonal.MARGIN
    places = torch.zeros(columns * shape.height, 1, 24, dtype=torch.float64)
    model.net.first.register_forward_hook(lambda *found: _blank_last_column(found[2]))
    assert model.net.places is not None
    model.net.places.bias.data.copy_(places)
    assert (0, 7) not in pixels_seen(model)(1, 0)
    assert (0, 6) in pixels_seen(model)(1, 0)


def _blank_last_column(features: Tensor) -> Tensor:
    features = features.clone()
    features[..., -1] = 0
    return features


@pytest.mark.parametrize("name", NAMES)
def test_no_gate_of_a_colour_sees_a_later_colour_of_its_own_pixel(name: str) -> None:
    """Each of the four gates has its own red, green and blue features."""
    layer: RowLayer | DiagonalLayer = row_layer(RGB) if name == "pixelrnn_row" else diagonal_layer(RGB)
    columns = RGB.width + (pixelrnn_diagonal.MARGIN if name == "pixelrnn_diagonal" else 0)
    x = torch.randn(RGB.height * columns, 1, len(layer.wide), dtype=torch.float64)
    jacobian = jacrev(lambda v: layer.states(v)[0, 0])(x)[:, 0, 0]  # of the first pixel, which has no neighbours
    reached = jacobian.view(3, len(layer.narrow) // 3, 3, len(layer.wide) // 3).abs().amax((1, 3)) > 0
    assert torch.equal(reached, torch.ones(3, 3).tril().bool())
    later = layer(x)[-1, 0]  # the last pixel: its neighbours' colours are all allowed
    moved = x.clone()
    moved[0, 0, len(layer.wide) // 3 * 2 :] += 1  # blue at the first pixel
    assert bool((layer(moved)[-1, 0] != later)[: len(layer.wide) // 3].any()), "red sees blue of an earlier pixel"


def test_a_masked_layer_lets_a_colour_see_those_up_to_its_own() -> None:
    layer = MaskedLinear(colour_groups(6, 3), colour_groups(3, 3))
    assert torch.equal(layer.masked() != 0, torch.ones(3, 3).tril().bool().repeat_interleave(2, 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_adds_to_its_input_which_alone_is_left_where_nothing_is_added(name: str) -> None:
    layer: RowLayer | DiagonalLayer = row_layer(RGB) if name == "pixelrnn_row" else diagonal_layer(RGB)
    columns = RGB.width + (pixelrnn_diagonal.MARGIN if name == "pixelrnn_diagonal" else 0)
    x = torch.randn(RGB.height * columns, 2, len(layer.wide), dtype=torch.float64)
    added = F.linear(layer.states(x), layer.widen.weight * layer.widen.mask, layer.widen.bias)
    torch.testing.assert_close(layer(x), x + added)
    assert added.shape[-1] == 2 * len(layer.narrow), "upsampled from h to 2h"
    for parameter in layer.widen.parameters():
        parameter.data.zero_()
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_layer_sees_a_window_of_seven_by_seven_before_the_pixel(name: str) -> None:
    model = small(name, ImageShape(1, 9, 9, 5))
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    seen = jacrev(lambda v: model.net.first(v)[0, :, 4, 4])(x).abs().sum((0, 1, 2)) > 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[1:4, 1:8] = expected[4, 1:4] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_drops_whole_features_of_an_image_and_keeps_their_mean(name: str) -> None:
    layer = small(name, WIDE, dropout=0.5).net.dropout.train()
    h = layer(torch.ones(7, 400, 12))
    assert torch.equal(h, h[:1].expand_as(h)), "at all pixels alike"
    assert set(h.unique().tolist()) == {0.0, 2.0}
    assert float(h.mean()) == pytest.approx(1, abs=0.1)
    assert torch.equal(layer.eval()(h), h)


# Sampling


@pytest.mark.parametrize("shape", [WIDE, TALL, RGB, ImageShape(3, 2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_from_memory_has_the_probabilities_of_the_whole_pass(name: str, shape: ImageShape) -> None:
    model = small(name, shape, layers=3)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, shape.levels, (3, *shape.chw), generator=generator).to(torch.uint8)
    with torch.no_grad():
        whole, memory = model.log_conditionals(x).flatten(2), model.steps(3)
        for k, place in enumerate(model.order.tolist()):
            if k % 4:  # now and then nothing is asked, as of what is known
                torch.testing.assert_close(memory.log_p(k), whole[:, :, place], rtol=1e-12, atol=1e-12)
            memory.tell(k, x.flatten(1)[:, place])


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_sampler_calls_the_network_once_for_each_dimension_and_on_one_pixel(name: str) -> None:
    model = small(name, RGB)
    sizes: list[tuple[int, ...]] = []
    model.net.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape)))
    model.sample(2, Draw(), Noise(0, dtype=torch.float64))
    assert sizes == [(2, 3, 1, 1)] * RGB.dims


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_sampler_takes_a_small_part_of_the_naive_ones_time(name: str) -> None:
    model = small(name, ImageShape(1, 10, 10, 4))
    spent = {}
    for sampler in ("naive", "native"):
        begin = time.thread_time()
        model.sample(2, Draw(sampler), Noise(0))
        spent[sampler] = time.thread_time() - begin
    assert spent["native"] < spent["naive"] / 3


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"first_kernel": 4}, "odd first_kernel >= 3, got 4"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\), got 1.0"),
        ({"width": 0}, "width >= 1 and layers >= 1, got 0"),
        ({"layers": 0}, "width >= 1 and layers >= 1, got"),
        ({"lr": 0.0}, "lr > 0"),
        ({"warmup": 1.5}, "warmup in"),
    ],
)
@pytest.mark.parametrize("module", [pixelrnn_row, pixelrnn_diagonal])
def test_bad_settings_are_told(module: object, config: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_config(module.MODEL.config, config, "pixelrnn")  # type: ignore[attr-defined]
