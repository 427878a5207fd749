"""Bits per dimension of the discrete test images, each with its kind, and the gap to a known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from baselines.contract import Nats
from baselines.data.likelihood import bits_per_dim, dequantisation, kinds, split_nats, subset
from baselines.noise import Noise, derive_seed
from baselines.types import ImageShape, Kind
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import error_of_mean, mean_over_images

_NO_LIKELIHOOD = "the model has no likelihood: it draws images, and no number for log P(x) can be had from it"


class BitsPerDim:
    """`bits_per_dim[name]` of every likelihood a model has and its terms; `nats[name]` of images with two levels.

    `kl_gap[name]` where the truth is known.
    """

    name = "bits_per_dim"
    description = "-log2 P(x) per dimension of the test images, exact, bound or estimate; kl_gap where log P is known"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no likelihood; None if there is one."""
        if subject.model is None:
            return "samples alone have no likelihood"
        if subject.dataset is None or len(subject.dataset.test) == 0:
            return "there are no test images"
        return None if kinds(subject.model) else _NO_LIKELIHOOD

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """For each likelihood its mean over the test split, its terms, and its gap to the truth.

        Raises:
            DivergedError: if any image's value is NaN or infinite.
        """
        assert subject.model is not None
        found: list[Measurement] = []
        for name, kind in kinds(subject.model, subject.likelihoods).items():
            how = dequantisation(subject.model, name)
            found += [_told(m, how) for m in self._one(subject, name, kind)]
        return tuple(found)

    def _one(self, subject: Subject, name: str, kind: Kind) -> list[Measurement]:
        model, dataset = subject.model, subject.dataset
        assert model is not None
        assert dataset is not None
        images = dataset.test.images
        if subject.likelihood_images is not None:
            images = images[subset(len(images), subject.likelihood_images)]
        noise = Noise(seed=derive_seed(subject.seed, "likelihood"), device=subject.device)

        def progress(done: int) -> None:
            subject.progress(f"likelihood {name}", done, len(images))

        progress(0)
        summed: dict[str, Tensor] = {}

        def seen(batch: Nats) -> None:
            for key, values in batch.maps.items():
                summed[key] = summed.get(key, 0) + values.double().sum(0).cpu()

        nats = split_nats(model, images, name, noise, progress=progress, seen=seen)
        bits = _bits(nats.total, dataset.shape)
        if nats.curves:
            subject.likelihood_curves[name] = {
                curve: _curve(_bits(values, dataset.shape)) for curve, values in nats.curves.items()
            }
        for key, values in summed.items():
            mean = values / (len(images) * math.log(2))  # every pixel is one dimension: its bits are bits/dim
            subject.maps[f"bits[{name}:{key}]"] = {"values": mean.tolist()}
        errors = self._errors(subject, name, nats, dataset.shape)
        per_image = "; ".join([f"{float(nats.total.double().mean()):.2f} nats an image", *(m.note for m in errors)])
        found = [self._measurement(subject, f"{self.name}[{name}]", bits, kind, per_image), *errors]
        if dataset.shape.levels == 2:  # the field quotes binary images in nats
            whole = self._measurement(subject, f"nats[{name}]", _bits(nats.total, dataset.shape), kind, "")
            found.append(_in_nats(whole, dataset.shape))
        for part, values in nats.parts.items():
            note = f"one term of {self.name}[{name}]; {float(values.double().mean()):.2f} nats an image"
            found.append(
                self._measurement(subject, f"{self.name}[{name}:{part}]", _bits(values, dataset.shape), None, note)
            )
        if dataset.truth is not None:
            truth = _bits(dataset.truth(images), dataset.shape)
            note = f"less the truth's {truth.mean():.4f} bits/dim, paired by image; " + (
                "an estimate of KL(truth || model)" if kind == "exact" else "bounds KL(truth || model) as its kind says"
            )
            found.append(self._measurement(subject, f"kl_gap[{name}]", bits - truth, kind, note))
        return found

    def _errors(self, subject: Subject, name: str, nats: Nats, shape: ImageShape) -> list[Measurement]:
        """How far an estimate may be off, by cause, beside the spread over images that its interval holds."""
        found = []
        for cause, values in nats.standard_errors.items():
            error = error_of_mean(_bits(values, shape))
            plain = self._measurement(subject, f"{self.name}[{name}:{cause}_error]", _bits(values, shape), None, "")
            note = f"standard error of the {cause} {error:.2g} bits/dim"
            found.append(replace(plain, value=error, low=None, high=None, note=note))
        for cause, values in nats.changes.items():
            bits = _bits(values, shape)
            note = f"{cause}: {float(bits.mean()):+.2g} bits/dim"
            found.append(self._measurement(subject, f"{self.name}[{name}:{cause}]", bits, None, note))
        return found

    def _measurement(self, subject: Subject, metric: str, bits: Array, kind: Kind | None, note: str) -> Measurement:
        mean = mean_over_images(bits)
        return Measurement(
            metric=metric,
            value=mean.value,
            unit="bits/dim",
            better="none" if kind is None else "lower",  # a term of a sum is not better for being small
            n=mean.n,
            scope=self.scope,
            low=mean.low,
            high=mean.high,
            kind=kind,
            protocol={**subject.protocol, "split": "test", "n_real": len(bits), "version": self.version},
            note=note,
        )


def _in_nats(measured: Measurement, shape: ImageShape) -> Measurement:
    """Bits per dimension as nats an image."""
    scale = math.log(2) * shape.dims
    low, high = (None if end is None else end * scale for end in (measured.low, measured.high))
    return replace(measured, value=measured.value * scale, unit="nats", low=low, high=high)


def _told(m: Measurement, dequantised: str | None) -> Measurement:
    """The measurement with the dequantisation that it was taken with, if any, in protocol and note."""
    if dequantised is None:
        return m
    note = f"{m.note}; {dequantised} dequantisation"
    return replace(m, protocol={**m.protocol, "dequantisation": dequantised}, note=note)


def _bits(nats: Tensor, shape: ImageShape) -> Array:
    bits = bits_per_dim(nats.to(torch.float64), shape)
    assert isinstance(bits, Tensor)
    array: Array = bits.cpu().numpy()
    return array


def _curve(bits: Array) -> dict[str, list[float | None]]:
    """Mean over images (N, T) at each timestep, with normal intervals as `mean_over_images` has them."""
    points = [mean_over_images(column) for column in bits.T]
    return {
        "mean": [point.value for point in points],
        "low": [point.low for point in points],
        "high": [point.high for point in points],
    }
