"""Perceptual path length: how much images change along paths through a model's latent space.

Karras et al. 2019, arXiv:1812.04948, eq. 2: E d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps))) / eps^2 over latents
z1, z2 ~ N(0, I) and places t ~ U[0, 1), with eps = 1e-4 and d a squared perceptual distance. As in their code, and in
torch-fidelity's, the mean leaves out what lies below the 1st or above the 99th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import HasLatent
from baselines.errors import DivergedError, UserError
from baselines.noise import Noise, derive_seed
from baselines.types import Progress
from bench.metrics.base import Array, Extractor, Subject
from bench.metrics.lpips import Lpips
from bench.metrics.network import exact_float32
from bench.metrics.perceptual import Perceptual, perceptual
from bench.record import Measurement, Scope
from bench.stats import Estimate, normal_interval

Sampling = Literal["full", "end"]
Decode = Callable[[Tensor], Tensor]
PERCENTILES = (1, 99)
_LARGEST_BATCH = 250  # pairs
_PIXELS = 50_000  # of the images of a batch, at most: larger ones leave a CPU's caches
_OUTSIDE = 1e-5  # by which a pixel may leave [-1, 1]: rounding
_ON_A_LEVEL = 1e-3  # of a level: nearer to one than that is rounded to it


@dataclass(frozen=True)
class Paths:
    """Which steps are measured."""

    pairs: int = 10_000  # of latents
    epsilon: float = 1e-4
    sampling: Sampling = "full"  # t uniform in [0, 1); `end`: t = 0, as in torch-fidelity
    batch: int = 50  # pairs at a time

    def __post_init__(self) -> None:
        if self.pairs < 2 or self.batch < 1:
            raise UserError(f"path length: expected pairs >= 2 and batch >= 1, got {self.pairs} and {self.batch}")
        if not 0 < self.epsilon < 1:
            raise UserError(f"path length: expected epsilon between 0 and 1, got {self.epsilon}")
        if self.sampling not in ("full", "end"):
            raise UserError(f"path length: expected sampling full or end, got {self.sampling!r}")

    def protocol(self) -> dict[str, Any]:
        """What must be equal to compare."""
        return {
            "pairs": self.pairs,
            "epsilon": self.epsilon,
            "places": "t uniform in [0, 1)" if self.sampling == "full" else "t = 0",
            "interpolation": "spherical, of z",
            "mean": "of the 1st to the 99th percentile",
            "precision": "latents float64, networks float32",
        }


def slerp(first: Tensor, second: Tensor, places: Tensor) -> Tensor:
    """Spherical interpolation sin((1 - t) w) / sin w z1 + sin(t w) / sin w z2, w the angle between z1 and z2, (N, d).

    Of unit vectors it is StyleGAN's. Others keep their lengths, where StyleGAN's code makes units of them: its network
    does that to any z, other generators know the lengths of their prior alone. Parallel vectors: a straight line.

    Args:
        first: z1, (N, d).
        second: z2, (N, d).
        places: t, (N,); 0 gives z1, 1 gives z2.
    """
    a, b, t = F.normalize(first), F.normalize(second), places[:, None]
    # w by its tangent: the arc cosine would lose half of the digits of a small angle
    w = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))
    sine = w.sin()
    curved = ((1 - t) * w).sin() / sine * first + (t * w).sin() / sine * second
    return torch.where(sine > 1e-7, curved, torch.lerp(first, second, t))


def path_length(
    decode: Decode,
    distance: Callable[[Tensor, Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    places: Tensor,
    epsilon: float,
) -> Array:
    """d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps))) / eps^2 of each pair, (N,) (Karras et al., inside eq. 2).

    Args:
        decode: G, from latents (2N, d) to real-valued images (2N, C, H, W) in [-1, 1].
        distance: d, squared, from two sets of images to (N,).
        first: z1, (N, d); best in float64, for which the step is large.
        second: z2, (N, d).
        places: t, (N,).
        epsilon: the step.

    Raises:
        UserError: if G gives other than real-valued images in [-1, 1].
        DivergedError: if images or distances are NaN or infinite.
    """
    z = torch.cat([slerp(first, second, places), slerp(first, second, places + epsilon)])
    with torch.no_grad():
        images = _checked(decode(z), len(z))
        distances = distance(*images.chunk(2))
    if tuple(distances.shape) != (len(first),):
        raise UserError(f"path length: expected distances ({len(first)},), got {tuple(distances.shape)}")
    found: Array = distances.double().cpu().numpy() / epsilon**2
    if not np.isfinite(found).all():
        raise DivergedError(f"path length: {int((~np.isfinite(found)).sum())} of {len(found)} are NaN or infinite")
    return found


def _checked(images: Any, count: int) -> Tensor:
    """The images, if they are what a path length can be taken of."""
    what = f"generator: expected real-valued images ({count}, C, H, W) in [-1, 1]"
    if not isinstance(images, Tensor):
        raise UserError(f"{what}, got {type(images).__name__}")
    if images.ndim != 4 or len(images) != count:
        raise UserError(f"{what}, got {tuple(images.shape)}")
    rounded = "; a step of a path is far less than a level, so that rounding leaves noise: give images before it"
    if images.dtype not in (torch.float32, torch.float64):  # half precision is rounding too
        raise UserError(f"{what}, got {images.dtype}{rounded}")
    if not bool(torch.isfinite(images).all()):
        raise DivergedError(f"generator: images with NaN or infinity among {count}")
    low, high = float(images.min()), float(images.max())
    if low < -1 - _OUTSIDE or high > 1 + _OUTSIDE:
        raise UserError(f"{what}, got {low:.4g} .. {high:.4g}; scale or clamp them")
    level = (images + 1) * 127.5
    if bool(((level - level.round()).abs() < _ON_A_LEVEL).all()) and not bool((images.abs() == 1).all()):
        raise UserError(f"{what}, got images that are rounded to 256 levels{rounded}")
    return images


def lengths(
    decode: Decode,
    latent: int,
    by: Perceptual,
    paths: Paths,
    noise: Noise,
    progress: Progress = lambda phase, done, total: None,
) -> Array:
    """The path lengths of so many pairs, (N,); pair i depends on the noise at index i alone.

    progress is told ("path length", pairs done, N).
    """
    if latent < 1:
        raise UserError(f"path length: expected a latent of at least 1 dimension, got {latent}")
    found = []
    with exact_float32():  # TF32 would drown the step
        for first in range(0, paths.pairs, paths.batch):
            progress("path length", first, paths.pairs)
            n, keyed = min(paths.batch, paths.pairs - first), noise.at(first)
            z = keyed.normal("path ends", n, (2, latent))
            places = keyed.uniform("path places", n, ()) if paths.sampling == "full" else z.new_zeros(n)
            found.append(path_length(decode, by.distance, z[:, 0], z[:, 1], places, paths.epsilon))
    progress("path length", paths.pairs, paths.pairs)
    return np.concatenate(found)


def trimmed_mean(values: ArrayLike) -> Estimate:
    """The mean of what lies from the 1st to the 99th percentile, with its normal interval.

    As StyleGAN's code takes it: both percentiles are values of the sample, the next one outwards. The standard error is
    the Winsorised deviation over (share kept) * sqrt(N) (Tukey & McLaughlin 1963, Sankhya A 25).
    """
    x = np.asarray(values, np.float64)
    low = float(np.percentile(x, PERCENTILES[0], method="lower"))
    high = float(np.percentile(x, PERCENTILES[1], method="higher"))
    kept = x[(x >= low) & (x <= high)]
    error = float(x.clip(low, high).std(ddof=1)) * math.sqrt(len(x)) / len(kept)
    return Estimate(float(kept.mean()), *normal_interval(float(kept.mean()), error), n=len(x))


def measured(found: Array, paths: Paths, by: Perceptual, scope: Scope, **protocol: Any) -> Measurement:
    """`ppl`, or `ppl[extractor]`, of path lengths (N,)."""
    mean = trimmed_mean(found)
    return Measurement(
        metric="ppl" if isinstance(by, Lpips) else f"ppl[{by.name}]",
        value=mean.value,
        unit="",
        better="lower",
        n=mean.n,
        scope=scope,
        low=mean.low,
        high=mean.high,
        protocol={**protocol, "distance": {"name": by.name, **by.identity()}, **paths.protocol()},
        note=f"{found.mean():.4g} with the extremes; 0 if all images are alike; normal interval over pairs",
    )


def distance_key(extractor: Extractor | None) -> Any:
    """What path lengths by this run's extractor depend on beside it."""
    if extractor is None:
        return None
    by, reason = perceptual(extractor)
    return reason if by is None else by.identity()


class PathLength:
    """`ppl` by LPIPS, `ppl[extractor]` by the features of a data set's own classifier."""

    name = "ppl"
    description = "Perceptual path length: change of the image along steps in latent space (by LPIPS plain ppl)"
    scope: Scope = "train"
    version = 1

    def __init__(self, pairs: int = Paths.pairs) -> None:
        self.pairs = pairs

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is none; None if there is one."""
        if not isinstance(subject.model, HasLatent):
            return "the model has no latent space whose points it turns into images"
        if subject.extractor is None:
            return subject.extractor_reason or "no feature extractor for these images"
        return perceptual(subject.extractor)[1] or None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number from 0 on.

        Raises:
            DivergedError: if any image or distance is NaN or infinite.
        """
        model, extractor = subject.model, subject.extractor
        assert isinstance(model, HasLatent)
        assert extractor is not None
        by, _ = perceptual(extractor)
        assert by is not None
        paths = Paths(self.pairs, batch=max(1, min(_LARGEST_BATCH, _PIXELS // (2 * model.shape.dims))))
        noise = Noise(derive_seed(subject.seed, self.name), device=subject.device, dtype=torch.float64)
        found = lengths(lambda z: model.decode(z.float()), model.latent, by, paths, noise, subject.progress)
        return (measured(found, paths, by, self.scope, **subject.protocol, version=self.version),)
