"""Convolutions of regions: equal to those of whole images, and fronts in which nothing waits for its neighbour."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.nets.raster import At, Grid, Memory, RasterConv2d, Region, Span, fronts

B, H, W = 2, 5, 8
WINDOWS = [
    ((-1, 0), (-1, 1)),
    ((-2, 0), (-1, 0)),
    ((0, 0), (-3, 0)),
    ((-1, -1), (0, 0)),
    ((-2, -1), (-2, 2)),
    ((0, 0), (0, 0)),
]


def pixels_of(region: Region) -> Iterator[tuple[int, int]]:
    for i in range(region.rows):
        for j in range(region.columns):
            yield region.row + i, region.column - i * region.skew + j


def values_of(x: Tensor, region: Region) -> Tensor:
    """Those of whole images x (B, C, H, W), as layers have them: (B * pixels, C)."""
    places = list(pixels_of(region))
    return torch.stack([x[:, :, r, c] for r, c in places], 1).flatten(0, 1)


def layer_of(rows: Span, columns: Span, stride: int = 1, positions: tuple[int, int] | None = None) -> RasterConv2d:
    torch.manual_seed(0)
    mask = (torch.rand(4, 3, rows[1] - rows[0] + 1, columns[1] - columns[0] + 1) < 0.8).float()
    if rows[1] == 0 and columns[1] > 0:
        mask[:, :, -1, -columns[1] :] = 0  # nothing to the right in the pixel's own row
    layer = RasterConv2d(3, 4, rows, columns, mask, stride, positions).double()
    if layer.position is not None:
        torch.nn.init.normal_(layer.position)
    return layer


@torch.no_grad()
@pytest.mark.parametrize(("rows", "columns"), WINDOWS)
def test_a_whole_image_is_convolved_with_the_window_as_it_is_written(rows: Span, columns: Span) -> None:
    layer, x = layer_of(rows, columns), torch.randn(B, 3, H, W, dtype=torch.float64)
    assert layer.mask is not None
    expected = layer.bias.view(1, -1, 1, 1).repeat(B, 1, H, W)
    for i, dy in enumerate(range(rows[0], rows[1] + 1)):
        for j, dx in enumerate(range(columns[0], columns[1] + 1)):
            for r in range(H):
                for c in range(W):
                    if 0 <= r + dy < H and 0 <= c + dx < W:
                        weight = (layer.weight * layer.mask)[:, :, i, j]
                        expected[:, :, r, c] += x[:, :, r + dy, c + dx] @ weight.T
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("skew", [3, 4, W])
@pytest.mark.parametrize(("rows", "columns"), WINDOWS)
def test_fronts_add_up_to_the_whole_image(rows: Span, columns: Span, skew: int, positions: bool) -> None:
    layer, x = layer_of(rows, columns, positions=(H, W) if positions else None), torch.randn(B, 3, H, W).double()
    whole, memory = layer(x), Memory(B, H, W)
    for region in fronts(H, W, skew):
        found = layer(values_of(x, region), At(memory, region, region))
        torch.testing.assert_close(found, values_of(whole, region), rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_and_blocks_of_rows_are_regions_too() -> None:
    layer, x = layer_of((-1, 0), (-1, 1)), torch.randn(B, 3, H, W, dtype=torch.float64)
    whole, memory = layer(x), Memory(B, H, W)
    for region in (Region(0, 0, 3, W), Region(3, 0, 1, W), Region(4, 0, 1, W)):
        found = layer(values_of(x, region), At(memory, region, region))
        torch.testing.assert_close(found, values_of(whole, region), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("size", [(5, 8), (4, 7)])
def test_a_stride_of_two_answers_for_every_other_pixel(size: tuple[int, int]) -> None:
    layer, x = layer_of((-1, 0), (-1, 0), stride=2), torch.randn(B, 3, *size, dtype=torch.float64)
    whole, memory = layer(x), Memory(B, *size)
    assert whole.shape[2:] == (memory.halved.height, memory.halved.width) == (-(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(whole, F.conv2d(F.pad(x, (1, 0, 1, 0)), layer.masked_weight(), layer.bias, stride=2))
    for region in fronts(*size, size[1]):
        memory.feed(layer, values_of(x, region), region)
        if region.row % 2 == region.column % 2 == 0:
            half = Region(region.row // 2, region.column // 2)
            torch.testing.assert_close(layer(None, At(memory, None, half)), values_of(whole, half))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (3, 3), (5, 9)])
@pytest.mark.parametrize("skew", [1, 2, 4, 20])
def test_fronts_hold_every_pixel_once_and_each_row_follows_the_one_above(size: tuple[int, int], skew: int) -> None:
    height, width = size
    time = {}
    steps = list(fronts(height, width, skew))
    for t, region in enumerate(steps):
        for pixel in pixels_of(region):
            assert pixel not in time
            time[pixel] = t
    assert set(time) == {(r, c) for r in range(height) for c in range(width)}
    assert len(steps) == width + min(skew, width) * (height - 1)
    for (r, c), t in time.items():
        before = [(r, c - 1), *((r - 1, k) for k in range(min(c + skew, width)))]
        assert all(time[pixel] < t for pixel in before if pixel in time)


def test_a_grid_is_zero_around_the_image() -> None:
    x = torch.randn(1, 2, 3, 4)
    grid = Grid(x)
    assert torch.equal(grid.read(Region(0, 0, 2, 3)), x.view(6, 4))
    layer = RasterConv2d(4, 1, (-1, 0), (-1, 1))
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    memory = Memory(1, 2, 3)
    memory.feed(layer, x.view(6, 4), Region(0, 0, 2, 3))
    corner = layer(None, At(memory, None, Region(0, 2))).detach()
    torch.testing.assert_close(corner[0, 0], x[0, 0, 1:].sum())


def test_a_window_below_the_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="rows up to 0"):
        RasterConv2d(1, 1, (-1, 1), (0, 0))
