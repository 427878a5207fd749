"""A critic's Wasserstein estimate, E f(x) - E f(G(z)), of held-out and of train images.

Gulrajani et al. 2017, arXiv:1704.00028, section 5.4: the critic's value on both tells whether it overfits.

By duality the Wasserstein-1 distance is the largest such difference over all f of slope at most 1. A trained critic is
one f, of slope near 1, so that the number estimates the distance from below, as far as the slope holds; on train
images it is larger where the critic knows them by heart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract import Draw, HasCritic, Noise
from baselines.data.dataset import Split
from baselines.data.likelihood import subset, to_signed
from baselines.noise import derive_seed
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import normal_interval

IMAGES = 2000  # of a split, at most, and as many generated ones
_BATCH = 250


class Gap(NamedTuple):
    """Of two means, and its standard error."""

    value: float
    error: float


def gap(real: Array, generated: Array) -> Gap:
    """mean of real (N,) - mean of generated (M,), both independent."""
    error = float(np.sqrt(real.var(ddof=1) / len(real) + generated.var(ddof=1) / len(generated)))
    return Gap(float(real.mean() - generated.mean()), error)


class Wasserstein:
    """`wasserstein[test]` and `wasserstein[train]`."""

    name = "wasserstein"
    description = "The critic's mean on real less that on generated images: an estimate of their Wasserstein-1 distance"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no estimate; None if there is one."""
        if not isinstance(subject.model, HasCritic):
            return "the model has no critic"
        if subject.requests is not None:
            return "the model draws what it is asked for, and its critic judges that"
        if subject.dataset is None or min(len(subject.dataset.test), len(subject.dataset.train)) < 2:
            return "needs at least 2 train and 2 test images"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Both, against the same generated images."""
        dataset, model = subject.dataset, subject.model
        assert dataset is not None
        assert model is not None
        n = min(IMAGES, len(dataset.train))
        generated = _generated(subject, n)
        on_generated = _values(subject, generated)
        low, mean, high = _slopes(subject, dataset.test, generated)
        return tuple(
            self._measurement(split, gap(_values(subject, chosen), on_generated), len(chosen), n, (low, mean, high))
            for split, chosen in (("test", _some(dataset.test)), ("train", _some(dataset.train)))
        )

    def _measurement(
        self, split: str, found: Gap, real: int, generated: int, slopes: tuple[float, float, float]
    ) -> Measurement:
        low, high = normal_interval(found.value, found.error)
        return Measurement(
            metric=f"{self.name}[{split}]",
            value=found.value,
            unit="",
            better="lower",
            n=real,
            scope=self.scope,
            low=low,
            high=high,
            protocol={
                "split": split,
                "n_real": real,
                "n_generated": generated,
                "distance": "Euclidean, pixels in [-1, 1]",
                "samples": "averaged generator, rounded to levels",
                "version": self.version,
            },
            note="normal interval over images, of this critic; its slope between test and generated images is "
            f"{slopes[1]:.3g} on average, {slopes[0]:.3g} to {slopes[2]:.3g}: at slopes up to 1 it bounds the distance "
            "from below",
        )


def _some(split: Split) -> Tensor:
    return split.images[subset(len(split), IMAGES)]


@torch.no_grad()
def _generated(subject: Subject, n: int) -> Tensor:
    model, noise = subject.model, Noise(derive_seed(subject.seed, "wasserstein"), device=subject.device)
    assert model is not None
    draw = Draw(model.samplers[0])
    return torch.cat([model.sample(min(_BATCH, n - i), draw, noise.at(i)).cpu() for i in range(0, n, _BATCH)])


@torch.no_grad()
def _values(subject: Subject, images: Tensor) -> Array:
    """f of uint8 images, (N,)."""
    model = subject.model
    assert isinstance(model, HasCritic)
    levels = model.shape.levels
    parts = [model.criticise(to_signed(x.to(subject.device), levels)) for x in torch.split(images, _BATCH)]
    found: Array = torch.cat(parts).double().cpu().numpy()
    return found


def _slopes(subject: Subject, split: Split, generated: Tensor) -> tuple[float, float, float]:
    """Smallest, mean and largest norm of the critic's gradient at places between test and generated images."""
    model = subject.model
    assert isinstance(model, HasCritic)
    levels = model.shape.levels
    n = min(len(split), len(generated), _BATCH)
    real = to_signed(split.images[subset(len(split), n)], levels)
    noise = Noise(derive_seed(subject.seed, "wasserstein"))
    x = torch.lerp(to_signed(generated[:n], levels), real, noise.uniform("between", n, (1, 1, 1)))
    x = x.to(subject.device).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model.criticise(x).sum(), x)
    norms = gradient.flatten(1).norm(dim=1)
    return float(norms.min()), float(norms.mean()), float(norms.max())
