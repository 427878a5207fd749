"""The one place that owns scaling, dequantisation, its Jacobian and the logarithm's base.

Models speak nats per image; tables speak bits per dimension of the discrete data. A continuous density p(y)
of y = (x + u) / levels, u ~ U[0, 1), bounds the discrete likelihood (Theis et al. 2016, arXiv:1511.01844):
log P(x) >= E_u[log p(y)] - D log(levels), and with k draws of u by Jensen (Burda et al. 2016)
log P(x) >= E[log 1/k sum_i p(y_i)] - D log(levels). A model that dequantises by a q(u | x) of its own has
log p(y) - log q(u | x) in place of log p(y) (Ho et al. 2019, arXiv:1902.00275, eq. 11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Dequantises, GenerativeModel, HasDensity, HasLikelihood, Nats
from baselines.errors import DivergedError, UserError
from baselines.noise import Noise, derive_seed
from baselines.types import ImageShape, Kind

IMPORTANCE_SAMPLES = 16  # k of `dequantised_k16`
_LARGEST_BATCH = 500
_BATCH_VALUES = 50_000  # of pixels in a batch: larger batches leave a CPU's caches, to half the speed at 28x28

_DENSITY_LIKELIHOODS: Mapping[str, Kind] = {
    "dequantised": "upper_bound",
    f"dequantised_k{IMPORTANCE_SAMPLES}": "upper_bound",
}


def to_signed(x: Tensor, levels: int) -> Tensor:
    """Levels 0 .. levels - 1 to [-1, 1]: uint8 to float32, real numbers in their own precision."""
    return (x if x.is_floating_point() else x.float()) * (2 / (levels - 1)) - 1


def to_unit(x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 0 .. levels - 1 to [0, 1]."""
    return x.to(dtype) / (levels - 1)


def to_256(x: Tensor, levels: int) -> Tensor:
    """uint8 0 .. levels - 1 to the nearest of 0 .. 255."""
    return x if levels == 256 else (x.float() * (255 / (levels - 1))).round().to(torch.uint8)


def from_signed(y: Tensor, levels: int) -> Tensor:
    """Real numbers to the nearest level, clamped: [-1, 1] to uint8 0 .. levels - 1."""
    return ((y + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).to(torch.uint8)


def dequantise(x: Tensor, levels: int, u: Tensor) -> Tensor:
    """uint8 x and u in [0, 1), both (B, C, H, W), to y = (x + u) / levels in (0, 1), in u's dtype.

    u keeps 2^-15 off its ends: float32 would round x + u into the next level's bin, or y to 0 or 1.
    """
    return (x.to(u.dtype) + u.clamp(2**-15, 1 - 2**-15)) / levels


def quantise(y: Tensor, levels: int) -> Tensor:
    """The inverse of `dequantise`: y in [0, 1) to the uint8 level whose bin holds it, clamped outside."""
    return (y * levels).floor().clamp(0, levels - 1).to(torch.uint8)


def unit_to_signed(y: Tensor, levels: int) -> tuple[Tensor, float]:
    """y of `dequantise` on the scale of `to_signed`, each bin centred on its level; log|dz/dy| of one pixel."""
    scale = 2 * levels / (levels - 1)
    return y * scale - levels / (levels - 1), math.log(scale)


def bin_to_signed(y: Tensor, levels: int) -> Tensor:
    """y in [0, 1] to real numbers in [-1, 1], clamped, which `from_signed` rounds as `quantise` does."""
    return unit_to_signed(y, levels)[0].clamp(-1, 1)


def logit(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """z = logit(alpha + (1 - 2 alpha) y) and log|dz/dy| summed per image (B,) (Dinh et al. 2017, sec. 4.1)."""
    s = alpha + (1 - 2 * alpha) * y
    log_s, log_1ms = s.log(), torch.log1p(-s)
    log_det = (math.log1p(-2 * alpha) - log_s - log_1ms).flatten(1).sum(1)
    return log_s - log_1ms, log_det


def unlogit(z: Tensor, alpha: float) -> Tensor:
    """The inverse of `logit`; y may leave [0, 1] by alpha / (1 - 2 alpha)."""
    return (torch.sigmoid(z) - alpha) / (1 - 2 * alpha)


def bits_per_dim(nats: Tensor | float, shape: ImageShape) -> Tensor | float:
    """Nats per image to bits per dimension of the discrete data."""
    return nats / (math.log(2) * shape.dims)


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P of each pixel under a logistic rounded to the levels, edge bins open (Salimans et al. 2017, eq. 2).

    x: integer levels; mean, log_scale: on the [-1, 1] scale; all broadcast to x's shape, as does the result.
    """
    centred = x.to(mean.dtype) * (2 / (levels - 1)) - 1 - mean
    half_bin = 1 / (levels - 1)
    inverse = torch.exp(-log_scale)
    upper, lower = inverse * (centred + half_bin), inverse * (centred - half_bin)
    log_cdf, log_survival = F.logsigmoid(upper), F.logsigmoid(-lower)
    # log(sigmoid(u) - sigmoid(l)) = logsigmoid(u) + logsigmoid(-l) + log(1 - exp(l - u)), exact in every tail
    width = (2 * half_bin * inverse).expand_as(upper)  # u - l, not by that difference, which loses all its digits
    middle = log_cdf + log_survival + torch.log(-torch.expm1(-width))
    return torch.where(x == 0, log_cdf, torch.where(x == levels - 1, log_survival, middle))


def logistic_mixture(x: Tensor, log_weights: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log P of each pixel of x (B, ...) under a mixture of K rounded logistics (Salimans et al. 2017, eq. 1-2).

    log_weights, mean, log_scale: (B, K, ...), the weights not yet normalised; the rest as in `discretised_logistic`.
    """
    each = discretised_logistic(x[:, None], mean, log_scale, levels)
    return torch.logsumexp(log_weights.log_softmax(1) + each, 1)


def logistic_mixture_levels(log_weights: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """`logistic_mixture` of every level: (B, K, ...) to (B, levels, ...)."""
    x = torch.arange(levels, device=mean.device).view(1, levels, 1, *[1] * (mean.ndim - 2))
    each = discretised_logistic(x, mean[:, None], log_scale[:, None], levels)
    return torch.logsumexp(log_weights.log_softmax(1)[:, None] + each, 2)


def discretised_gaussian(x: Tensor, mean: Tensor, log_std: Tensor, levels: int) -> Tensor:
    """log P of each pixel under a Gaussian rounded to the levels, edge bins open (Ho et al. 2020, eq. 13).

    Arguments as in `discretised_logistic`.
    """
    centred = x.to(mean.dtype) * (2 / (levels - 1)) - 1 - mean
    half_bin = 1 / (levels - 1)
    inverse = torch.exp(-log_std)
    upper, lower = inverse * (centred + half_bin), inverse * (centred - half_bin)
    # by symmetry take the bin in the left tail, where log_ndtr keeps its relative precision
    flip = centred > 0
    high, low = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    middle = log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-12)))
    edge_low, edge_high = torch.special.log_ndtr(upper), torch.special.log_ndtr(-lower)
    return torch.where(x == 0, edge_low, torch.where(x == levels - 1, edge_high, middle))


def kinds(model: GenerativeModel, asked: Collection[str] = ()) -> Mapping[str, Kind]:
    """The likelihoods that this model has, by name; those that it has on request where they are `asked` for."""
    if isinstance(model, HasLikelihood):
        more = {name: kind for name, kind in model.likelihoods_on_request.items() if name in asked}
        return {**model.likelihoods, **more}
    return _DENSITY_LIKELIHOODS if isinstance(model, HasDensity) else {}


def image_nats(model: GenerativeModel, x: Tensor, name: str, noise: Noise) -> Nats:
    """-log P(x) in nats of uint8 x (B, C, H, W) by any model that has one.

    Raises:
        UserError: if the model has no likelihood of this name.
        DivergedError: if any value is NaN or infinite; nothing is dropped from a mean.
    """
    if name not in kinds(model, (name,)):
        raise UserError(f"{type(model).__name__}: no likelihood {name!r}; it has {', '.join(kinds(model)) or 'none'}")
    if isinstance(model, HasLikelihood):
        nats = model.nats(x, name, noise)
    else:
        assert isinstance(model, HasDensity)
        nats = _dequantised(model, x, name, noise, model.shape)
    if not bool(torch.isfinite(nats.total).all()):
        bad = int((~torch.isfinite(nats.total)).sum())
        raise DivergedError(f"likelihood {name!r}: {bad} of {len(x)} images are NaN or infinite")
    return nats


def dequantisation(model: GenerativeModel, name: str) -> str | None:
    """How the likelihood `name` makes images continuous: `uniform` or `variational`; None where it does not."""
    if isinstance(model, HasLikelihood) or name not in _DENSITY_LIKELIHOODS:
        return None
    return model.dequantisation if isinstance(model, Dequantises) else "uniform"


def _dequantised(model: HasDensity, x: Tensor, name: str, noise: Noise, shape: ImageShape) -> Nats:
    samples = IMPORTANCE_SAMPLES if name != "dequantised" else 1
    log_p = [_log_weight_of_a_draw(model, x, shape, noise.fork(k)) for k in range(samples)]
    bound = torch.logsumexp(torch.stack(log_p), 0) - math.log(samples)
    return Nats(shape.dims * math.log(shape.levels) - bound)


def _log_weight_of_a_draw(model: HasDensity, x: Tensor, shape: ImageShape, noise: Noise) -> Tensor:
    """log p(y) - log q(u | x) of one u."""
    if not isinstance(model, Dequantises):
        return _log_density_of_a_draw(model.log_density, x, shape, noise)
    u, log_q = model.dequantise(x, noise.uniform("dequantise", len(x), shape.chw))
    return model.log_density(dequantise(x, shape.levels, u)) - log_q


def dequantised_nats(log_density: Callable[[Tensor], Tensor], x: Tensor, shape: ImageShape, noise: Noise) -> Tensor:
    """D log(levels) - log p(y) of one draw of y: (B,), or (B, K) where `log_density` gives K estimates of log p(y)."""
    return shape.dims * math.log(shape.levels) - _log_density_of_a_draw(log_density, x, shape, noise)


def _log_density_of_a_draw(
    log_density: Callable[[Tensor], Tensor], x: Tensor, shape: ImageShape, noise: Noise
) -> Tensor:
    return log_density(dequantise(x, shape.levels, noise.uniform("dequantise", len(x), shape.chw)))


def batches(images: Tensor, size: int, noise: Noise) -> Iterator[tuple[Tensor, Noise]]:
    """Cut images into batches, each with the noise of its own global indices."""
    for first in range(0, len(images), size):
        yield images[first : first + size], noise.at(noise.first + first)


def subset(n: int, at_most: int) -> Tensor:
    """The indices of `at_most` of n images, in order: the same ones for every model, and no file's first ones.

    MNIST's first 5,000 test images, for one, are easier than the others.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed(0, "subset", n)))
    return order[:at_most].sort().values


@torch.no_grad()
def split_nats(
    model: GenerativeModel,
    images: Tensor,
    name: str,
    noise: Noise,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    seen: Callable[[Nats], None] = lambda nats: None,
) -> Nats:
    """`image_nats` of all images in batches, on the CPU; without its maps, which `seen` is shown batch by batch."""
    found = []
    size = batch_size or min(max(_BATCH_VALUES // model.shape.dims, 1), _LARGEST_BATCH)
    for x, keyed in batches(images, size, noise):
        found.append(image_nats(model, x.to(noise.device), name, keyed))
        seen(found[-1])
        progress(keyed.first - noise.first + len(x))

    def joined(field: str) -> dict[str, Tensor]:
        parts: list[Mapping[str, Tensor]] = [getattr(nats, field) for nats in found]
        return {part: torch.cat([values[part] for values in parts]).cpu() for part in parts[0]}

    return Nats(
        torch.cat([nats.total for nats in found]).cpu(),
        joined("parts"),
        curves=joined("curves"),
        standard_errors=joined("standard_errors"),
        changes=joined("changes"),
    )
