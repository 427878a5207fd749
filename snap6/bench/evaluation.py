"""Scores anyone's samples against real images, with the uncertainty and the protocol of every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from baselines.config import nearest
from baselines.errors import UserError
from baselines.noise import derive_seed
from baselines.types import Progress
from bench import provenance
from bench.families import measure_families
from bench.metrics import catalogue
from bench.metrics.base import Extractor, Subject
from bench.metrics.extraction import Pool
from bench.metrics.extractors import NETWORKS, PIXELS, choose_extractor, own_extractor
from bench.metrics.feature_cache import FeatureCache, default_folder
from bench.metrics.images import Chosen, ImageSet
from bench.metrics.ready_features import FeatureRows, ready_extractor
from bench.record import Measurement
from bench.sources.opening import SPLITS, Images, open_images


@dataclass(frozen=True)
class Evaluation:
    """What was found."""

    measured: tuple[Measurement, ...]
    skipped: Mapping[str, str]  # metric -> reason
    floor: Mapping[str, float]  # metric -> the score of as many real images of the train split
    floor_reason: str  # why there is none; empty if there is one
    about: Mapping[str, Any] = field(default_factory=dict)  # both sets, the extractor, where and by what

    def value(self, metric: str) -> float:
        """One number, such as value("fid").

        Raises:
            KeyError: with the reason, if it was not taken.
        """
        for m in self.measured:
            if m.metric == metric:
                return m.value
        raise KeyError(f"{metric}: {self.skipped.get(metric.split('[')[0], 'not asked for')}")

    def frame(self) -> pd.DataFrame:
        """One row a number."""
        columns = ("metric", "value", "low", "high", "unit", "better", "n", "note")
        rows = [
            {**{name: getattr(m, name) for name in columns}, "floor": self.floor.get(m.metric)} for m in self.measured
        ]
        return pd.DataFrame(rows, columns=[*columns, "floor"])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            **self.about,
            "measured": [asdict(m) | {"floor": self.floor.get(m.metric)} for m in self.measured],
            "skipped": dict(self.skipped),
            "floor": self.floor_reason or "as many images of the train split, against the same reference",
        }


def evaluate(
    samples: Images,
    reference: Images,
    *,
    train: Images | None = None,
    extractor: Extractor | nn.Module | str | None = None,
    extractor_name: str | None = None,
    weights: Path | str | None = None,
    metrics: Sequence[str] = (),
    device: str = "cpu",
    data_dir: Path | str | None = None,
    cache: Path | str | bool = True,
    levels: int | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: Progress = lambda phase, done, total: None,
) -> Evaluation:
    """Compare samples with real images that their model has not seen.

    Args:
        samples: a folder of images, .zip, .npz or .npy file, data set by name, uint8 tensor (N, C, H, W), or an
            iterable of such batches; or features: a .npz file with a float array `features` (N, d) and perhaps
            `logits` (N, K), in all sets or in none, or a .npy file of one float array (N, d).
        reference: the same, held-out real images; of a data set by name the test split (`mnist:train` names another).
        train: the real images that the model learned from; a data set's own by default. They make the floor.
        extractor: digits-cnn, mnist-cnn, inception, vgg16, clip, dinov2 (and their sizes), pixels8x8; a torch module
            from uint8 RGB images to features (N, d), or to a dict of `features` and `logits`; an object with `name`,
            `identity` and `extract`; one of these in a file (`mine.py:NAME`). None leaves the choice to the images.
        extractor_name: of ready-made features, what they are features of.
        weights: of the extractor's network: a state dict, .pth or .safetensors.
        metrics: only these families; all by default.
        device: cpu or cuda.
        data_dir: where data sets on disk are looked for; $TRILEMMA_DATA by default.
        cache: where features are kept; True: the user's cache folder, False: nowhere.
        levels: how many a pixel has in tensors and in arrays that do not say it; by default those of the reference
            where it says it, as a data set does, else 256.
        seed: of resampling.
        processes: that extract features side by side; the numbers are the same, up to rounding in the network.
        progress: told (phase, done, total).

    Raises:
        UserError: for bad input, with what was expected, what was got and what to do.
    """
    chosen = _chosen(metrics)
    data = None if data_dir is None else Path(data_dir)
    real = open_images(reference, "reference images", data, levels or 256, progress)
    levels = levels or real.shape.levels
    generated = open_images(samples, "samples", data, levels, progress)
    if train is None and isinstance(reference, str):
        train = _train_split(reference)
    learned = None if train is None else open_images(train, "train images", data, levels, progress)
    ready = ready_extractor([images for images in (generated, real, learned) if images is not None], extractor_name)
    if ready is not None and (extractor is not None or weights is not None):
        raise UserError("extractor: ready-made features are given, so none is run; name them by --extractor-name")
    network = ready or _network(extractor, weights, reference, generated, real, device)
    subject = Subject(
        seed,
        generated=generated,
        reference=real,
        train=learned,
        extractor=network,
        device=device,
        progress=progress,
        protocol={} if ready else {"sizes": {"generated": list(generated.shape), "real": list(real.shape)}},
        disk=None if ready or cache is False else FeatureCache(default_folder() if cache is True else Path(cache)),
    )
    with Pool(processes) as pool:
        subject.pool = pool if processes > 1 and ready is None else None
        measured, skipped = measure_families("draw", subject, chosen)
        floor, reason = _floor(subject, chosen)
    about = {
        "samples": _about(generated),
        "reference": _about(real),
        "extractor": {"name": network.name, **network.identity()},
        "provenance": provenance.collect(device),
    }
    return Evaluation(measured, skipped, floor, reason, about)


def _chosen(metrics: Sequence[str]) -> frozenset[str] | None:
    known = [metric.name for metric in catalogue.METRICS if metric.scope == "draw"]
    for name in metrics:
        if name not in known:
            raise UserError(f"metric: unknown name {name!r}{nearest(name, known)}")
    return frozenset(metrics) or None


def _train_split(reference: str) -> str | None:
    """A data set by name has its own; of `mnist:train` as reference there is none left."""
    base, colon, split = reference.rpartition(":")
    if Path(reference).exists() or (colon and split == "train"):
        return None
    return f"{base if colon and split in SPLITS else reference}:train"


def _network(
    extractor: Extractor | nn.Module | str | None,
    weights: Path | str | None,
    reference: Images,
    generated: ImageSet,
    real: ImageSet,
    device: str,
) -> Extractor:
    if extractor is not None and not isinstance(extractor, str):
        return own_extractor(extractor, device)
    path = None if weights is None else Path(weights)
    name = reference.rpartition(":")[0] or reference if isinstance(reference, str) else "these images"
    network, _ = choose_extractor(name, real.shape, extractor, path, device)
    assert network is not None
    asked = extractor is not None or path is not None
    if generated.shape.chw == real.shape.chw or (asked and network.name in NETWORKS):  # these take any size
        return network
    other, _ = choose_extractor(name, generated.shape, extractor, path, device)
    if other is None or other.name != network.name or network.name == PIXELS:
        raise UserError(
            f"samples: expected images like the reference's {real.shape}, got {generated.shape}; "
            "name an extractor that takes both, such as --extractor inception"
        )
    return network


def _floor(subject: Subject, chosen: frozenset[str] | None) -> tuple[dict[str, float], str]:
    """The scores of real images at the samples' own number: what a perfect model would reach."""
    if subject.train is None or subject.generated is None:
        return {}, "no train images were given"
    n = len(subject.generated)
    if len(subject.train) < n:
        return {}, f"there are {len(subject.train)} train images for {n} samples: the floor wants as many"
    rng = np.random.default_rng(derive_seed(subject.seed, "floor"))
    index = np.sort(rng.permutation(len(subject.train))[:n])
    floor = replace(subject, generated=Chosen(subject.train, index, "train images"), train=None)
    measured, _ = measure_families("draw", floor, chosen)
    return {m.metric: m.value for m in measured}, ""


def _about(images: ImageSet) -> dict[str, Any]:
    ready = isinstance(images, FeatureRows)
    return {
        "name": images.split,
        "images": len(images),
        "shape": None if ready else list(images.shape.chw),
        "levels": None if ready else images.shape.levels,
        "sha256": images.content(),
    }
