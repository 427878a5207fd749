"""What a model that infers its own codes has learned of them: information in its images, and clusters that are classes.

Chen et al. 2016, arXiv:1606.03657, eq. 5: I(c; G(z, c)) >= H(c) - E[-log Q(c|x)] over codes c from their prior and
images x drawn from them (Barber and Agakov's variational bound), here for each code by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor

from baselines.contract import Codes, Inferred, InfersCodes, Noise
from baselines.noise import derive_seed
from bench.metrics.base import Subject
from bench.record import Measurement, Scope
from bench.stats import mean_over_images

IMAGES = 2000  # drawn for the bound
_BATCH = 250
_NO_CODES = "the model infers no codes"

Integers = NDArray[np.int64]


def log_probabilities(codes: Codes, inferred: Inferred) -> Tensor:
    """log Q(c|x) in nats of each code, (B, 1 + D): the category, then densities of the continuous codes."""
    category = inferred.log_probabilities.double().gather(1, codes.category[:, None])
    mean, log_std = inferred.mean.double(), inferred.log_std.double()
    far = (codes.continuous.double() - mean) * (-log_std).exp()
    return torch.cat([category, -0.5 * far**2 - log_std - 0.5 * math.log(2 * math.pi)], 1)


class InformationBound:
    """`mi_bound[category]` and `mi_bound[continuous i]`: H(c) - E[-log Q(c|x)] of freshly drawn images, in nats."""

    name = "mi_bound"
    description = "lower bound on the mutual information of a latent code and the image drawn from it, in nats"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no bound; None if there is one."""
        return None if isinstance(subject.model, InfersCodes) else _NO_CODES

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """A number for each code, with the normal interval over images; it falls below 0 where Q is wrong and sure."""
        model = subject.model
        assert isinstance(model, InfersCodes)
        entropies = [math.log(model.categories)] + [math.log(2)] * model.continuous_codes
        names = ["category"] + [f"continuous {i + 1}" for i in range(model.continuous_codes)]
        found = torch.cat(list(_drawn(model, subject))).cpu().numpy()
        notes = [f"at most H(c) = log {model.categories} = {entropies[0]:.4f}; 0 where images tell nothing of the code"]
        notes += ["no ceiling: the code is real-valued; 0 where images tell nothing of it"] * model.continuous_codes
        protocol = {**subject.protocol, "n_generated": IMAGES, "codes": "from their prior", "version": self.version}
        told = []
        for name, entropy, values, note in zip(names, entropies, found.T, notes, strict=True):
            bound = mean_over_images(entropy + values)
            told.append(
                Measurement(
                    metric=f"{self.name}[{name}]",
                    value=bound.value,
                    unit="nats",
                    better="higher",
                    n=bound.n,
                    scope=self.scope,
                    low=bound.low,
                    high=bound.high,
                    protocol=protocol,
                    note=f"{note}; normal interval over images",
                )
            )
        return tuple(told)


def _drawn(model: InfersCodes, subject: Subject) -> Iterator[Tensor]:
    """log Q of each code, (B, 1 + D), batch by batch."""
    noise = Noise(derive_seed(subject.seed, "mutual information"), device=subject.device)
    for first in range(0, IMAGES, _BATCH):
        subject.progress("mutual information", first, IMAGES)
        keyed = noise.at(first)
        with torch.no_grad():
            codes = model.draw_codes(min(_BATCH, IMAGES - first), keyed)
            yield log_probabilities(codes, model.infer(model.generate(codes, keyed)))


class ClusterAccuracy:
    """`cluster_accuracy`: the share of test images whose most probable category is the one matched with their class.

    Categories and classes are matched one to one so that the most validation images are right; the test images have
    no part in it. Classes left over where there are fewer categories count as wrong.
    """

    name = "cluster_accuracy"
    description = (
        "Share of test images whose inferred category is their class's, matched one to one on validation images"
    )
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there are no clusters; None if there are."""
        if not isinstance(subject.model, InfersCodes):
            return _NO_CODES
        if subject.dataset is None or subject.dataset.test.labels is None or subject.dataset.val.labels is None:
            return "the data have no classes"
        return None if len(subject.dataset.val) and len(subject.dataset.test) else "there are no test images"

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """A share in [0, 1] with Wilson's interval over the test images."""
        model, dataset = subject.model, subject.dataset
        assert isinstance(model, InfersCodes)
        assert dataset is not None
        assert dataset.val.labels is not None
        assert dataset.test.labels is not None
        classes = dataset.classes or 1 + int(max(dataset.val.labels.max(), dataset.test.labels.max()))
        labels = {"val": dataset.val.labels.numpy(), "test": dataset.test.labels.numpy()}
        found = {"val": inferred_categories(model, dataset.val.images, subject.device)}
        found["test"] = inferred_categories(model, dataset.test.images, subject.device)
        matched = matching(found["val"], labels["val"], model.categories, classes)
        right = {split: matched[found[split]] == labels[split] for split in found}
        low, high = binomtest(int(right["test"].sum()), len(right["test"])).proportion_ci(method="wilson")
        largest = float(np.bincount(labels["test"], minlength=classes).max() / len(labels["test"]))
        measured = Measurement(
            metric=self.name,
            value=float(right["test"].mean()),
            unit="",
            better="higher",
            n=len(right["test"]),
            scope=self.scope,
            low=float(low),
            high=float(high),
            protocol={
                **subject.protocol,
                "split": "test",
                "matching": "one to one, most right validation images",
                "n_val": len(right["val"]),
                "categories": model.categories,
                "classes": classes,
                "version": self.version,
            },
            note=f"matched on {len(right['val'])} validation images, of which {right['val'].mean():.3f} are right; "
            f"chance, where a category tells nothing of the class: {largest:.3f} at most; Wilson interval",
        )
        return (measured,)


def inferred_categories(model: InfersCodes, images: Tensor, device: str = "cpu") -> Integers:
    """The most probable category of each of uint8 images (N, C, H, W), (N,)."""
    batches = torch.split(images, _BATCH)
    with torch.no_grad():
        parts = [model.infer(batch.to(device)).log_probabilities.argmax(1).cpu() for batch in batches]
    return np.asarray(torch.cat(parts).numpy(), np.int64)


def matching(categories: Integers, labels: Integers, count: int, classes: int) -> Integers:
    """The class of each of `count` categories, (count,), -1 where it has none: one to one, with the most matches.

    Kuhn's Hungarian method, as scipy has it. categories, labels: (N,).
    """
    together = np.zeros((count, classes), np.int64)
    np.add.at(together, (categories, labels), 1)
    rows, columns = linear_sum_assignment(together, maximize=True)
    found = np.full(count, -1, np.int64)
    found[rows] = columns
    return found
