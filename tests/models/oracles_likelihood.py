"""Oracles for models with a likelihood, each comparing a model with arithmetic that knows nothing of its code.

Discrete models: sum over every image of a small space, sampler against density on that space, and which pixels each
conditional depends on. Flows: inverse, log-determinant against autograd, quadrature over two pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from baselines import registry
from baselines.config import build_config
from baselines.contract import Draw, GenerativeModel, HasDensity, HasLikelihood, Noise
from baselines.nets.couplings import Flow
from baselines.types import ImageShape

BINARY = ImageShape(1, 3, 3, 2)
TWO_PIXELS = ImageShape(1, 1, 2, 4)


def built(
    name: str, shape: ImageShape, config: Mapping[str, Any] = MappingProxyType({}), perturb: float = 0.1, seed: int = 0
) -> GenerativeModel:
    """A registered model in float64 and evaluation mode, all weights moved so that no zero initialisation is left."""
    model = registry.load(name).model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = model.build(shape, build_config(model.config, config, name)).double().eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(perturb * torch.randn_like(parameter))
    return made


# Discrete models


def all_images(shape: ImageShape) -> Tensor:
    """Every image of the shape, uint8 (levels^D, C, H, W), ordered as `index_of` counts them."""
    values = torch.tensor(list(itertools.product(range(shape.levels), repeat=shape.dims)), dtype=torch.uint8)
    return values.view(-1, *shape.chw)


def index_of(images: Tensor, levels: int) -> Tensor:
    """The position of each image (B,) in `all_images`."""
    digits = images.flatten(1).long()
    place = levels ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits * place).sum(1)


@torch.no_grad()
def probabilities(model: GenerativeModel, name: str = "exact") -> Tensor:
    """P of every image of the model's shape, by its own likelihood."""
    assert isinstance(model, HasLikelihood)
    return torch.exp(-model.nats(all_images(model.shape), name, Noise(0)).total)


class Distance(NamedTuple):
    """A total variation, with what an honest sampler's own would be."""

    value: float
    floor: float  # mean over honest samples of the same size
    spread: float  # their standard deviation


def sampler_distance(model: GenerativeModel, p: Tensor, n: int, draw: Draw | None = None, seed: int = 11) -> Distance:
    """Total variation between n samples of the model and p over `all_images`, beside n multinomial draws of p."""
    images = model.sample(n, draw or Draw(), Noise(seed, dtype=torch.float64))
    expected = (p / p.sum()).numpy()
    counts = torch.bincount(index_of(images, model.shape.levels), minlength=len(p)).numpy()
    honest = np.random.default_rng(seed).multinomial(n, expected, size=200)
    floors = 0.5 * np.abs(honest / n - expected).sum(1)
    value = 0.5 * float(np.abs(counts / n - expected).sum())
    return Distance(value, float(floors.mean()), float(floors.std()))


@torch.no_grad()
def dependence(model: GenerativeModel, bases: int = 4, map_name: str = "pixels", seed: int = 5) -> Tensor:
    """The support of the Jacobian of the log-conditionals, bool (D, D): [i, j] if log P(x_i | ...) changes with x_j.

    Found by changing one pixel at a time, in whatever mode the model is in; i and j count (C, H, W). Randomness of
    the forward pass (dropout) is held fixed, so it also holds in train mode.
    """
    assert isinstance(model, HasLikelihood)
    shape = model.shape
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(shape.dims, shape.dims, dtype=torch.bool)
    for _ in range(bases):
        base = torch.randint(0, shape.levels, (shape.dims,), generator=generator)
        rows = base.repeat(shape.dims, 1)
        step = torch.randint(1, shape.levels, (shape.dims,), generator=generator)
        changed = rows.clone()
        changed.diagonal().copy_((base + step) % shape.levels)
        maps = []
        for x in (rows, changed):
            torch.manual_seed(seed)
            maps.append(model.nats(x.view(-1, *shape.chw).to(torch.uint8), "exact", Noise(0)).maps[map_name].flatten(1))
        found |= (maps[0] != maps[1]).T
    return found


def raster_order(shape: ImageShape) -> Tensor:
    """The rank (D,) of each dimension of (C, H, W) when rows, columns, then colours are drawn in turn."""
    colour, row, column = torch.meshgrid(*(torch.arange(size) for size in shape.chw), indexing="ij")
    return ((row * shape.width + column) * shape.channels + colour).flatten()


def allowed(rank: Tensor) -> Tensor:
    """Which dimensions j may condition i, bool (D, D): those of lower rank."""
    return rank[None, :] < rank[:, None]


def leaks(found: Tensor, rank: Tensor) -> int:
    """How many conditionals depend on a later dimension; the diagonal is the value itself."""
    return int((found & (rank[None, :] > rank[:, None])).sum())


def context_fraction(found: Tensor, rank: Tensor) -> float:
    """The share of the allowed context that the conditionals use; what is missing is the blind spot."""
    return float((found & allowed(rank)).sum() / allowed(rank).sum())


@torch.no_grad()
def batch_leak(model: GenerativeModel, seed: int = 5) -> float:
    """How far an image's nats move, in train mode, when only its neighbours in the batch change."""
    assert isinstance(model, HasLikelihood)
    shape, generator = model.shape, torch.Generator().manual_seed(seed)
    ours, others, more = torch.randint(0, shape.levels, (3, 3, *shape.chw), generator=generator).to(torch.uint8)
    model.train()
    totals = []
    for neighbours in (others, more):
        torch.manual_seed(seed)
        totals.append(model.nats(torch.cat([ours, neighbours]), "exact", Noise(0)).total[:3])
    model.eval()
    return float((totals[0] - totals[1]).abs().max())


# Flows


@torch.no_grad()
def inverse_error(flow: Flow, x: Tensor) -> float:
    """Largest |x - decode(encode(x))|."""
    return float((flow(flow(x)[0], reverse=True)[0] - x).abs().max())


@torch.no_grad()
def log_det_sum(flow: Flow, x: Tensor) -> float:
    """Largest |log-det there + log-det back|, which should cancel."""
    z, there = flow(x)
    return float((there + flow(z, reverse=True)[1]).abs().max())


def log_det_by_autograd(flow: nn.Module, x: Tensor, reverse: bool = False) -> Tensor:
    """log|det| (B,) of the full Jacobian matrix that autograd finds for each image."""

    def flat(v: Tensor) -> Tensor:
        z: Tensor = flow(v[None], reverse=reverse)[0]
        return z.flatten()

    jacobians = [torch.autograd.functional.jacobian(flat, image).reshape(image.numel(), -1) for image in x.detach()]
    return torch.stack([torch.linalg.slogdet(matrix).logabsdet for matrix in jacobians])


@torch.no_grad()
def bin_masses(model: GenerativeModel, alpha: float, reach: float = 25.0, nodes: int = 12, panels: int = 6) -> Tensor:
    """The mass of each image of two pixels, (levels, levels), by Gauss-Legendre quadrature of the density.

    The variable is v with y = (sigmoid(v) - alpha) / (1 - 2 alpha), |v| < reach; so the small mass that a logit flow
    puts outside [0, 1] is counted where sampling puts it: in the outermost bins.
    """
    assert isinstance(model, HasDensity)
    levels = model.shape.levels
    inner = [math.log(s / (1 - s)) for s in (alpha + (1 - 2 * alpha) * k / levels for k in range(1, levels))]
    edges = [-reach, *inner, reach]
    points, weights = np.polynomial.legendre.leggauss(nodes)
    v, w, level = [], [], []
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        cuts = np.linspace(low, high, panels + 1)
        for a, b in itertools.pairwise(cuts):
            v.append((a + b) / 2 + (b - a) / 2 * points)
            w.append((b - a) / 2 * weights)
            level.append(np.full(nodes, k))
    v_all, w_all = torch.tensor(np.concatenate(v)), torch.tensor(np.concatenate(w))
    s = torch.sigmoid(v_all)
    y = (s - alpha) / (1 - 2 * alpha)
    w_all = w_all * s * (1 - s) / (1 - 2 * alpha)  # dy/dv
    pairs = torch.cartesian_prod(y, y).view(-1, *model.shape.chw)
    mass = model.log_density(pairs).exp() * torch.outer(w_all, w_all).flatten()
    bins = torch.cartesian_prod(torch.tensor(np.concatenate(level)), torch.tensor(np.concatenate(level)))
    return torch.zeros(levels**2, dtype=mass.dtype).index_add_(0, bins[:, 0] * levels + bins[:, 1], mass)
