"""Convolutions over a window that lies before each pixel, of whole images or of a few pixels at a time.

Whole images (B, C, H, W) are convolved as usual. While images are drawn, a `Memory` keeps what each layer has been fed,
and features are matrices (B * pixels, C) of the pixels of a `Region`; so an image costs one pass of the network in all
(Ramachandran et al. 2017, arXiv:1704.06001). A region may be a front: one pixel in each of several rows, each row
`skew` columns behind the row above it. All pixels of a front are independent of each other if no window of a layer
reaches `skew` or more columns to the right for every row that it reaches up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Span = tuple[int, int]
"""First and last offset from a pixel, both included."""


class Region(NamedTuple):
    """The pixels (row + i, column - i * skew + j) for i < rows and j < columns."""

    row: int
    column: int
    rows: int = 1
    columns: int = 1
    skew: int = 0


def front(time: int, height: int, width: int, skew: int, first: int = 0) -> Region:
    """The pixels (r, time - r * skew) of an image from its `first` row: one enters every `skew` steps, for `width`."""
    lowest = max(first, -(-(time - width + 1) // skew))
    rows = min(height - 1, time // skew) - lowest + 1
    return Region(lowest, time - lowest * skew, rows, 1, skew) if rows > 0 else Region(0, 0, 0, 1, skew)


def fronts(height: int, width: int, skew: int) -> Iterator[Region]:
    """All fronts of an image, width + skew * (height - 1) of them; with skew >= width it is a pixel at a time."""
    skew = min(skew, width)
    for time in range(width + skew * (height - 1)):
        yield front(time, height, width, skew)


Schedule = Iterator[tuple[Region, tuple[Region, ...] | None]]
"""The pixels to draw in each step, and what each layer of a stack over the rows above is to add before."""


def schedule(height: int, width: int, reaches: tuple[int, ...]) -> Schedule:
    """Of a vertical stack whose layers reach so far right, and a horizontal one for the pixel's own row.

    Whichever takes fewer calls of the two: pixels in turn with the row above done at once, or fronts.
    """
    fewest = width + (sum(reaches) + 1) * (height - 1)
    if 2 * fewest < height * width + height:
        return _fronts(height, width, reaches)
    return rows_in_turn(height, width, len(reaches))


def rows_in_turn(height: int, width: int, layers: int) -> Schedule:
    """Pixel after pixel; where a row begins, the vertical stack passes over the whole row above."""
    for region in fronts(height, width, width):
        begins = region.column == 0 and region.row > 0
        yield region, (Region(region.row - 1, 0, 1, width),) * layers if begins else None


def _fronts(height: int, width: int, reaches: tuple[int, ...]) -> Schedule:
    """A row follows R + 1 columns behind the one above, R being how far right the vertical stack reaches in all.

    A layer is ahead of the pixels that are drawn by what the layers after it reach.
    """
    skew = sum(reaches) + 1
    ahead = [sum(reaches[layer + 1 :]) for layer in range(len(reaches))]
    for time in range(width + skew * (height - 1)):
        below = [front(time + lead, height, width, skew, first=1) for lead in ahead]
        above = tuple(region._replace(row=region.row - 1) if region.rows else region for region in below)
        yield front(time, height, width, skew), above if any(region.rows for region in above) else None


class Layout:
    """Where a region lies in maps (B, H, W, C) with a margin for windows of these rows and columns."""

    def __init__(self, size: torch.Size, rows: Span = (0, 0), columns: Span = (0, 0), stride: int = 1) -> None:
        """The window of pixel (r, c) of a region lies around (r * stride, c * stride) of the map."""
        self.batch, height, width, self.channels = size
        self.top, self.left = max(0, -rows[0]), max(0, -columns[0])
        self.margin = (0, 0, self.left, max(0, columns[1]), self.top, max(0, rows[1]))
        self.kernel = rows[1] - rows[0] + 1, columns[1] - columns[0] + 1
        self.corner, self.stride = (self.top + rows[0], self.left + columns[0]), stride
        self.per_column = self.channels
        self.per_row = (width + self.left + self.margin[3]) * self.per_column
        self.per_image = (height + self.top + self.margin[5]) * self.per_row
        self._pixels: tuple[Region, _Strided] | None = None  # the last answer: layers of one shape share a layout
        self._windows: tuple[Region, _Strided] | None = None

    def pixels(self, region: Region) -> _Strided:
        """Size (B, rows, columns, C), strides and beginning of a region's pixels."""
        if self._pixels is None or self._pixels[0] is not region:
            size = (self.batch, region.rows, region.columns, self.channels)
            per_row = max(0, self.per_row - region.skew * self.per_column)
            start = (region.row + self.top) * self.per_row + (region.column + self.left) * self.per_column
            self._pixels = region, (size, (self.per_image, per_row, self.per_column, 1), start)
        return self._pixels[1]

    def windows(self, region: Region) -> _Strided:
        """Size (B, rows, columns, kernel rows, kernel columns * C), strides and beginning of the pixels' windows."""
        if self._windows is None or self._windows[0] is not region:
            size = (self.batch, region.rows, region.columns, self.kernel[0], self.kernel[1] * self.channels)
            per_row = max(0, self.stride * (self.per_row - region.skew * self.per_column))
            strides = (self.per_image, per_row, self.stride * self.per_column, self.per_row, 1)
            row, column = region.row * self.stride + self.corner[0], region.column * self.stride + self.corner[1]
            self._windows = region, (size, strides, row * self.per_row + column * self.per_column)
        return self._windows[1]


_Strided = tuple[tuple[int, ...], tuple[int, ...], int]


class Grid:
    """A map (B, H, W, C), written and read by regions; it is 0 around the image."""

    def __init__(self, values: Tensor, layout: Layout | None = None) -> None:
        """values: (B, H, W, C), copied if the layout has a margin; without one it has none."""
        self.layout = layout or Layout(values.shape)
        margin = self.layout.margin
        self.map = F.pad(values, margin) if any(margin) else values.contiguous()

    def write(self, region: Region, x: Tensor) -> None:
        """x: (B * pixels, C)."""
        size, strides, start = self.layout.pixels(region)
        self.map.as_strided(size, strides, start).copy_(x.reshape(size))

    def pixels(self, region: Region) -> Tensor:
        """What `write` wrote, (B * pixels, C)."""
        return self.map.as_strided(*self.layout.pixels(region)).reshape(-1, self.layout.channels)

    def read(self, region: Region) -> Tensor:
        """The windows of the region's pixels, (B * pixels, kernel rows * kernel columns * C)."""
        size, strides, start = self.layout.windows(region)
        batch, rows, columns, down, across = size
        return self.map.as_strided(size, strides, start).reshape(batch * rows * columns, down * across)


@dataclass
class _Layer:
    """A layer as it draws."""

    matrix: Tensor  # (numbers in the kernel, out), masked, in the order of `Grid.read`
    bias: Tensor | None  # (out,); None where each position has its own
    positions: Grid | None  # those
    fed: Grid | None  # None for a layer that sees its own pixel alone


class Memory:
    """What the layers of one resolution were fed while images are drawn, and their weights laid out as matrices."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        """An empty memory for `batch` images of height x width pixels."""
        self.batch, self.height, self.width = batch, height, width
        self._layers: dict[nn.Module, _Layer] = {}
        self._layouts: dict[object, Layout] = {}
        self._kept: dict[nn.Module, Grid] = {}
        self._halved: Memory | None = None

    @property
    def halved(self) -> Memory:
        """The memory of the same images at half the size, rounded up."""
        if self._halved is None:
            self._halved = Memory(self.batch, -(-self.height // 2), -(-self.width // 2))
        return self._halved

    def keep(self, owner: nn.Module, x: Tensor, region: Region) -> None:
        """Keep features (B * pixels, C) for `recall`; the map's sides are rounded up to even ones."""
        if owner not in self._kept:
            height, width = self.height + self.height % 2, self.width + self.width % 2
            self._kept[owner] = Grid(x.new_zeros(self.batch, height, width, x.shape[1]))
        self._kept[owner].write(region, x)

    def recall(self, owner: nn.Module, region: Region) -> Tensor:
        """What was kept in the region."""
        return self._kept[owner].read(region)

    def feed(self, layer: RasterConv2d, x: Tensor, region: Region) -> None:
        """Keep x (B * pixels, C) as the layer's input in the region."""
        fed = self._of(layer).fed
        assert fed is not None
        fed.write(region, x)

    def fed(self, layer: RasterConv2d, region: Region) -> Tensor:
        """What the layer was fed in the region, (B * pixels, C)."""
        fed = self._of(layer).fed
        assert fed is not None
        return fed.pixels(region)

    def answer(self, layer: RasterConv2d, x: Tensor | None, region: Region) -> Tensor:
        """The layer's output (B * pixels, out) in the region, from x or, where it sees more, from what it was fed."""
        known = self._of(layer)
        if known.fed is not None:
            x = known.fed.read(region)
        assert x is not None
        if known.positions is None:
            assert known.bias is not None
            return torch.addmm(known.bias, x, known.matrix)
        bias = known.positions.read(region)
        if self.batch > 1:
            bias = bias.expand(self.batch, *bias.shape).reshape(len(x), -1)
        return torch.addmm(bias, x, known.matrix)

    def _of(self, layer: RasterConv2d) -> _Layer:
        found = self._layers.get(layer)
        if found is None:
            weight, bias = layer.masked_weight(), layer.bias
            positions = (
                None if layer.position is None else Grid((layer.position + bias[:, None, None]).permute(1, 2, 0)[None])
            )
            matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).contiguous()
            fed = None if layer.pointwise else self._grid(layer)
            found = self._layers[layer] = _Layer(matrix, None if positions else bias, positions, fed)
        return found

    def _grid(self, layer: RasterConv2d) -> Grid:
        size = torch.Size((self.batch, self.height, self.width, layer.weight.shape[1]))
        key = size, layer.rows, layer.columns, layer.stride
        layout = self._layouts.setdefault(key, Layout(*key))
        return Grid(layer.weight.new_zeros(size), layout)


class At(NamedTuple):
    """Where a layer works on its way through an image: it is fed `source`, if anything, and answers for `target`."""

    memory: Memory
    source: Region | None
    target: Region


class RasterConv2d(nn.Module):
    """A convolution whose kernel covers the given rows and columns, as offsets from its pixel."""

    mask: Tensor | None

    def __init__(
        self,
        into: int,
        out: int,
        rows: Span = (0, 0),
        columns: Span = (0, 0),
        mask: Tensor | None = None,
        stride: int = 1,
        positions: tuple[int, int] | None = None,
    ) -> None:
        """Weights as `nn.Conv2d` initialises them, with the fan-in that a mask (out, into, rows, columns) leaves.

        Rows end at the pixel's own or above. A map of H x W gives one of ceil(H / stride) x ceil(W / stride). With
        `positions`, its height and width, each place has a learned bias more, 0 at first: convolutions alone see
        only the borders.

        Raises:
            ValueError: if the rows reach below the pixel.
        """
        super().__init__()
        if not rows[0] <= rows[1] <= 0:
            raise ValueError(f"expected rows up to 0, the pixel's own, got {rows}")
        self.rows, self.columns, self.stride = rows, columns, stride
        self.pointwise = rows == columns == (0, 0) and stride == 1  # whether it sees its own pixel alone
        shape = torch.Size((out, into, rows[1] - rows[0] + 1, columns[1] - columns[0] + 1))
        self.register_buffer("mask", mask, persistent=False)
        counted = torch.ones(shape) if mask is None else mask
        bound = counted.flatten(1).sum(1).clamp(min=1).rsqrt().view(-1, 1, 1, 1)
        self.weight = nn.Parameter((2 * torch.rand(shape) - 1) * bound * counted)
        self.bias = nn.Parameter((2 * torch.rand(out) - 1) * bound.flatten())
        self.position = None if positions is None else nn.Parameter(torch.zeros(out, *positions))

    def masked_weight(self) -> Tensor:
        """(out, into, rows, columns), 0 where masked."""
        return self.weight if self.mask is None else self.weight * self.mask

    def __call__(self, x: Tensor | None, at: At | None = None) -> Tensor:
        """As `forward`; of regions without a module's hooks, which take as long as the work on one pixel."""
        if at is None:
            whole: Tensor = super().__call__(x)
            return whole
        if at.source is not None and not self.pointwise:
            assert x is not None
            at.memory.feed(self, x, at.source)
        return at.memory.answer(self, x, at.target)

    def forward(self, x: Tensor) -> Tensor:
        """(B, into, H, W) to (B, out, H', W').

        Called with `at`: the features (B * pixels, into) of its source to those (B * pixels, out) of its target; None
        where it has no source, because the layer was fed all that it needs.
        """
        if not self.pointwise:
            x = F.pad(x, (-self.columns[0], self.columns[1], -self.rows[0], self.rows[1]))
        h = F.conv2d(x, self.masked_weight(), self.bias, self.stride)
        return h if self.position is None else h + self.position
