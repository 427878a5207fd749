"""Models that are a product of conditionals: what every one of them owes, and what follows from that alone.

log P(x) = sum_k log P(x_k | x_1 .. x_{k-1}) over the dimensions of an image in the model's own order. Sampling takes
one uniform number for each dimension through the inverse of its cumulated conditional, so that a faster sampler can
be compared with the slow one number by number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.completions import completions, first_pixel
from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLikelihood,
    Illustrates,
    ImageShape,
    Losses,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Strip,
    Trains,
)
from baselines.types import Kind

NAIVE = "naive"
"""The sampler that is the definition: the whole network once for every dimension, of which one number is used."""


@dataclass(frozen=True)
class Known:
    """The beginning of images: uint8 (B, C, H, W), of which the first `dims` dimensions in the model's order count."""

    images: Tensor
    dims: int


class Steps(Protocol):
    """A sampler's memory of what it has drawn of n images: each dimension costs one step and no whole pass."""

    def log_p(self, k: int) -> Tensor:
        """log P over the levels of the k-th dimension in order given all that was told, (n, levels)."""

    def tell(self, k: int, value: Tensor) -> None:
        """The value uint8 (n,) of the k-th dimension in order; k = 0, 1, 2, ... in turn."""


class Autoregressive(GenerativeModel, Trains, HasLikelihood, Illustrates):
    """Has exact conditionals of every dimension given those before it in its order.

    A subclass says its conditionals, its order where it is not rows of pixels, and how it draws without passing through
    the whole network for each dimension: by `steps`, or by a `draw` of its own. Without either it is drawn naively.
    """

    averaged: ClassVar[tuple[str, ...]] = ("net",)
    selection: ClassVar[str | None] = "exact"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact"}
    network: ClassVar[str | None] = "net"
    samplers: ClassVar[tuple[str, ...]] = ("native", NAIVE)
    config: Any  # has `lr`, `warmup` and `training`

    @property
    def order(self) -> Tensor:
        """int64 (D,): which dimension of the flattened (C, H, W) is drawn k-th.

        Rows from the top, columns from the left, colours within a pixel, unless the model has another.
        """
        return raster_order(self.shape)

    @abstractmethod
    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """log P(x_k = level | those before it), (B, levels, C, H, W), for all k at once.

        x: levels (B, C, H, W), uint8; or real numbers on the same scale, whose gradient then is the model's.
        """

    def steps(self, n: int, given: Given | None = None) -> Steps | None:
        """An empty memory for n images, for `draw`; None of a model that keeps nothing, and is drawn naively."""
        return None

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """-log P(x_k | those before it) of uint8 x, (B, C, H, W)."""
        return F.nll_loss(self.log_conditionals(x, given), x.long(), reduction="none")

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood, with a learning rate that rises over `warmup` and falls as a cosine."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase("likelihood", ("net",), self._loss, optimiser),)

    def _loss(self, batch: Batch, context: Context) -> Losses:
        return Losses(self.dimension_nats(batch.images).mean())  # per dimension, so that lr fits every size

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """Exact, with the map `pixels` of -log P(x_k | those before it)."""
        pixels = self.dimension_nats(x)
        return Nats(pixels.flatten(1).sum(1), maps={"pixels": pixels})

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """One uniform number for each dimension, through the inverse of its CDF, in the model's order."""
        self.check_draw(self.config, draw)
        uniform = noise.uniform("pixels", n, self.shape.chw)
        return (self.draw_naively if draw.sampler == NAIVE else self.draw)(uniform, None, given)

    @torch.no_grad()
    def draw(self, uniform: Tensor, known: Known | None = None, given: Given | None = None) -> Tensor:
        """Images uint8 from uniform numbers in [0, 1), both (n, C, H, W); what is `known` is kept as it is."""
        n, order, memory = len(uniform), self.order, self.steps(len(uniform), given)
        if memory is None:
            return self.draw_naively(uniform, known, given)
        x, u = _begun(uniform, known, order), uniform.flatten(1)
        for k, place in enumerate(order.tolist()):
            if known is None or k >= known.dims:
                x[:, place] = invert_cdf(memory.log_p(k), u[:, place])
            memory.tell(k, x[:, place])
        return x.view(n, *self.shape.chw)

    @torch.no_grad()
    def draw_naively(self, uniform: Tensor, known: Known | None = None, given: Given | None = None) -> Tensor:
        """What `draw` must equal: the whole network for every dimension."""
        order = self.order
        x, u = _begun(uniform, known, order), uniform.flatten(1)
        images = x.view(len(uniform), *self.shape.chw)
        for k, place in enumerate(order.tolist()):
            if known is None or k >= known.dims:
                x[:, place] = invert_cdf(self.log_conditionals(images, given).flatten(2)[:, :, place], u[:, place])
        return images

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Completions of test images, and the same uniform numbers behind another first pixel."""

        def complete(uniform: Tensor, images: Tensor, dims: int) -> Tensor:
            return self.draw(uniform, Known(images, dims))

        order = self.order
        return (
            completions(complete, order, self.shape, real, noise),
            first_pixel(complete, order, self.shape, noise),
        )


def raster_order(shape: ImageShape) -> Tensor:
    """int64 (D,): the flat places in (C, H, W) by rows, columns, then colours."""
    channels, height, width = shape.chw
    return torch.arange(shape.dims).view(channels, height * width).T.reshape(-1)


def invert_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The level (B,) uint8 whose share of the cumulated softmax of log_p (B, levels) holds uniform (B,)."""
    cdf = log_p.softmax(1).cumsum(1, dtype=torch.float64)
    u = uniform.double().contiguous()[:, None]
    level = torch.searchsorted(cdf.contiguous(), u, right=True)[:, 0]  # how many entries are at most u
    return level.clamp(max=log_p.shape[1] - 1).to(torch.uint8)


def _begun(uniform: Tensor, known: Known | None, order: Tensor) -> Tensor:
    """uint8 (n, D): what is known, and zeros."""
    x = torch.zeros(len(uniform), order.numel(), dtype=torch.uint8, device=uniform.device)
    if known is not None:
        first = order[: known.dims]
        x[:, first] = known.images.flatten(1)[:, first].to(x.device)
    return x
