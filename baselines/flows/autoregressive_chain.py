"""The chain of layers that MAF and IAF have in common."""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from baselines.autoregression import raster_order
from baselines.errors import UserError
from baselines.nets.autoregressive_flow import AffineAutoregressive, Permutation, Reversal
from baselines.nets.couplings import Chain, Elementwise, Flow
from baselines.types import ImageShape

Order = Literal["reversed", "random"]
"""Of a layer after the first: the reverse of the one before, as in the papers, or drawn at random and then kept."""

FLOOR = 0.15  # of the first layer's scales: below those of 17 levels, above those of the empty border of 256 levels


class Sizes(Protocol):
    """What the chain takes of a config."""

    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def hidden_layers(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def order(self) -> Order: ...
    @property
    def order_seed(self) -> int: ...


def autoregressive_chain(kind: type[AffineAutoregressive], shape: ImageShape, sizes: Sizes) -> Chain:
    """From (B, C, H, W) to flat (B, CHW): standardised, then layers, the first of them in raster order."""
    generator = torch.Generator().manual_seed(sizes.order_seed)

    def turn() -> Flow:
        if sizes.order == "reversed":
            return Reversal()
        return Permutation(torch.randperm(shape.dims, generator=generator), shape.dims)

    flows: list[Flow] = [Elementwise(*shape.chw, floor=FLOOR), Permutation(raster_order(shape), *shape.chw)]
    for i in range(sizes.layers):
        flows += [turn()] if i else []
        flows.append(kind(shape.dims, [sizes.width] * sizes.hidden_layers, sizes.dropout))
    return Chain(*flows)


def check_autoregressive(name: str, sizes: Sizes) -> None:
    """Refuse sizes that make no flow.

    Raises:
        UserError: saying what was expected and what was got.
    """
    if sizes.layers < 1 or sizes.width < 1 or sizes.hidden_layers < 0 or not 0 <= sizes.dropout < 1:
        raise UserError(
            f"{name}: expected layers and width >= 1, hidden_layers >= 0 and dropout in [0, 1), "
            f"got {sizes.layers}, {sizes.width}, {sizes.hidden_layers}, {sizes.dropout}"
        )
    if not 0 < sizes.alpha < 0.5:
        raise UserError(f"{name}: expected alpha between 0 and 0.5, got {sizes.alpha}")
