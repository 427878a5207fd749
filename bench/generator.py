"""Scores anyone's generator along the paths of its latent space; samples are scored by `bench.evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.config import nearest
from baselines.errors import UserError
from baselines.noise import Noise, derive_seed
from baselines.types import Progress
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.lpips import Lpips
from bench.metrics.own_extractor import evaluating
from bench.metrics.path_length import PathLength, Paths, Sampling, lengths, measured
from bench.metrics.perceptual import FeatureDistance, Perceptual
from bench.record import Measurement

_LPIPS = "vgg16"


def path_length(
    decode: Callable[[Tensor], Tensor],
    latent: int,
    *,
    extractor: str | Perceptual = _LPIPS,
    weights: Path | str | None = None,
    lpips_weights: Path | str | None = None,
    pairs: int = Paths.pairs,
    epsilon: float = Paths.epsilon,
    sampling: Sampling = Paths.sampling,
    batch: int = Paths.batch,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = lambda phase, done, total: None,
) -> Measurement:
    """Perceptual path length of a generator: how much its images change along paths through its latent space.

    Args:
        decode: from float32 latents (B, latent), standard normal, to real-valued images (B, C, H, W) in [-1, 1] that
            are not rounded to levels. Of a torch module batch norm and dropout are in evaluation mode meanwhile.
        latent: dimensions of z.
        extractor: vgg16 for LPIPS, which makes the number that is called `ppl`; digits-cnn or mnist-cnn; or an object
            with `name`, `identity()` and `distance(first, second)`, from two sets of images to (B,).
        weights: of VGG16, torchvision's file; by default that in torch's cache, else it is downloaded.
        lpips_weights: of LPIPS, torch-fidelity's file; the same default.
        pairs: of latents, each with one step.
        epsilon: the step, as a part of the way from one latent to the other.
        sampling: full, anywhere on the way; end, at its beginning, as torch-fidelity does.
        batch: pairs at a time.
        device: cpu or cuda; a module has to be there already.
        seed: of the latents.
        progress: told (phase, pairs done, pairs).

    Raises:
        UserError: for bad input, with what was expected, what was got and what to do.
        DivergedError: if an image or a distance is NaN or infinite.
    """
    if not callable(decode):
        raise UserError(f"generator: expected a function from latents to images, got {type(decode).__name__}")
    if not isinstance(latent, int) or isinstance(latent, bool):
        raise UserError(f"latent: expected the number of dimensions of z, got {latent!r}")
    paths = Paths(pairs, epsilon, sampling, batch)
    by = _distance(extractor, _path(weights), _path(lpips_weights), device)
    noise = Noise(derive_seed(seed, PathLength.name), device=device, dtype=torch.float64)
    with evaluating(decode) if isinstance(decode, nn.Module) else nullcontext():
        found = lengths(lambda z: decode(z.float()), latent, by, paths, noise, progress)
    return measured(found, paths, by, PathLength.scope, version=PathLength.version)


def _distance(extractor: Any, weights: Path | None, lpips_weights: Path | None, device: str) -> Perceptual:
    if extractor == _LPIPS:
        return Lpips.open(weights, lpips_weights, device)
    if weights is not None or lpips_weights is not None:
        raise UserError(f"weights: they are for {_LPIPS}, got extractor {extractor!r}")
    if isinstance(extractor, str):
        if extractor not in SPECS:
            told = nearest(extractor, (_LPIPS, *SPECS))
            raise UserError(f"extractor: {extractor!r} gives no distance of images that are not rounded{told}")
        return FeatureDistance(ClassifierExtractor(SPECS[extractor], device))
    lacks = [part for part in ("identity", "distance") if not callable(getattr(extractor, part, None))]
    if lacks or isinstance(extractor, type) or not isinstance(getattr(extractor, "name", None), str):
        raise UserError(
            f"extractor: expected {_LPIPS}, {', '.join(SPECS)}, or an object with `name`, `identity()` and "
            f"`distance(first, second)`, got {extractor!r:.100}"
        )
    given: Perceptual = extractor
    return given


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)
