"""Whether a picture around key patches puts them where they came from, and shows them there.

Lee et al. 2017 (arXiv:1703.10730) train for both: a mask of the patches' places, and their appearance in the image.
What the patches were cut out of is known, so both are exact. The places count by intersection over union (Jaccard) of
the predicted and the true mask, one number an image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.contract import PlacesParts
from baselines.data.likelihood import to_unit
from baselines.given import Requests
from baselines.noise import Noise, derive_seed
from bench.metrics.base import Array, Subject
from bench.metrics.features import protocol_of_images
from bench.record import Measurement, Scope
from bench.stats import mean_over_images

INSIDE = 0.5
"""A pixel is predicted to lie in a patch where the mask is at least so large."""
_BATCH = 64


def overlaps(found: Tensor, true: Tensor) -> Array:
    """Intersection over union (N,) of masks bool (N, 1, H, W); 0 where nothing is found, 1 if both are empty."""
    both, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return torch.where(either > 0, both.double() / either.clamp(min=1), 1.0).numpy()


def best_fixed_mask(true: Tensor) -> Tensor:
    """The one mask bool (1, 1, H, W) that overlaps most with masks (N, 1, H, W), of those that a threshold can make.

    Pixels are taken in the order of how many masks hold them, up to where the mean overlap is largest.
    """
    flat = true.flatten(1)
    order = flat.sum(0).argsort(descending=True, stable=True)
    sizes, total = torch.arange(1, len(order) + 1), torch.zeros(len(order), dtype=torch.float64)
    for part in torch.split(flat[:, order], 1000):
        both = part.cumsum(1)
        total += (both / (part.sum(1, keepdim=True) + sizes - both).double()).sum(0)
    found = torch.zeros(len(order), dtype=torch.bool)
    found[order[: int(total.argmax()) + 1]] = True
    return found.view(1, *true.shape[1:])


class MaskOverlap:
    """`mask_iou`, and beside it `mask_iou[mean-mask]`: of the mask that says the same of every image."""

    name = "mask_iou"
    description = "Intersection over union of where a model puts the patches and where they were cut out"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is none; None if there is one."""
        if subject.generated is None:
            return "no samples were drawn"
        if not isinstance(subject.model, PlacesParts):
            return "the model puts no patches anywhere"
        if subject.requests is None or subject.requests.masks is None:
            return "where the patches lay is not known"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Means over the requests with normal intervals, in [0, 1]."""
        asked = _asked(subject)
        assert asked.masks is not None
        assert subject.dataset is not None
        found = overlaps(self._found(subject, asked), asked.masks)
        requests = subject.dataset.train.requests
        if requests is None or requests.masks is None:
            return (self._told(subject, self.name, found, "without masks of training images there is no yardstick"),)
        fixed = best_fixed_mask(requests.masks)
        usual = overlaps(fixed.expand_as(asked.masks), asked.masks)
        level = f"the training masks' mean, cut off where it overlaps most with them ({float(fixed.sum()):.0f} pixels)"
        note = f"{found.mean() / max(usual.mean(), 1e-9):.2f} times that of {level}; normal interval over requests"
        return (
            self._told(subject, self.name, found, note),
            self._told(subject, f"{self.name}[mean-mask]", usual, f"of {level}; the same for every image"),
        )

    def _found(self, subject: Subject, asked: Requests) -> Tensor:
        """Where the model puts the patches of its first images, bool (M, 1, H, W)."""
        assert isinstance(subject.model, PlacesParts)
        assert subject.draw is not None
        noise = Noise(derive_seed(subject.seed, "sample"), device=subject.device)  # of the images that were drawn
        parts = []
        for first in range(0, len(asked), _BATCH):
            given = asked.given.take(torch.arange(first, min(first + _BATCH, len(asked)))).to(subject.device)
            with torch.no_grad():
                _, mask = subject.model.place(len(given), subject.draw, noise.at(first), given)
            parts.append(mask.cpu() >= INSIDE)
        return torch.cat(parts)

    def _told(self, subject: Subject, metric: str, values: Array, note: str) -> Measurement:
        told = mean_over_images(values)
        return Measurement(
            metric=metric,
            value=told.value,
            unit="",
            better="higher" if metric == self.name else "none",
            n=told.n,
            scope=self.scope,
            low=told.low,
            high=told.high,
            protocol=protocol_of_images(subject, self.version, inside=f"mask >= {INSIDE}", requests=len(values)),
            note=note,
        )


class AppearanceDistance:
    """`appearance_l1` where the patches were cut out; `appearance_l1[anywhere]` wherever the image shows them best."""

    name = "appearance_l1"
    description = "Mean absolute difference between the given patches and what the image shows in their places"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is none; None if there is one."""
        if subject.generated is None:
            return "no samples were drawn"
        if subject.requests is None or subject.requests.given.patches is None:
            return "the model was given no patches"
        asked = subject.requests
        return "where the patches lay is not known" if asked.masks is None or asked.answers is None else None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Means over the requests with normal intervals, pixels in [0, 1]; 0 is an image that shows them."""
        asked = _asked(subject)
        assert subject.generated is not None
        assert asked.given.patches is not None
        assert asked.answers is not None
        assert asked.masks is not None
        levels = subject.generated.shape.levels
        images = torch.cat(list(subject.generated.batches(_BATCH)))[: len(asked)].cpu()
        there = distances_there(images, asked.answers, asked.masks, levels)
        anywhere = distances_anywhere(images, asked.given.patches, levels)
        others = asked.answers.roll(-1, 0)
        by_chance = distances_there(others, asked.answers, asked.masks, levels).mean()
        somewhere = distances_anywhere(others, asked.given.patches, levels).mean()
        return (
            self._told(subject, self.name, there, f"in the places that they were cut out of; {by_chance:.3f}"),
            self._told(
                subject, f"{self.name}[anywhere]", anywhere, f"each in the place where it fits best; {somewhere:.3f}"
            ),
        )

    def _told(self, subject: Subject, metric: str, values: Array, note: str) -> Measurement:
        told = mean_over_images(values)
        return Measurement(
            metric=metric,
            value=told.value,
            unit="",
            better="lower",
            n=told.n,
            scope=self.scope,
            low=told.low,
            high=told.high,
            protocol=protocol_of_images(subject, self.version, pixels="level / (levels - 1)", requests=len(values)),
            note=f"{note} in the next request's true image instead; normal interval over requests",
        )


def distances_there(images: Tensor, answers: Tensor, masks: Tensor, levels: int) -> Array:
    """Mean |image - answer| over the pixels of the mask, (N,), pixels in [0, 1].

    images, answers: uint8 (N, C, H, W). masks: bool (N, 1, H, W), none empty.
    """
    difference = (to_unit(images, levels, torch.float64) - to_unit(answers, levels, torch.float64)).abs().mean(1)
    inside = masks[:, 0].double()
    found: NDArray[np.float64] = ((difference * inside).sum((1, 2)) / inside.sum((1, 2))).numpy()
    return found


def distances_anywhere(images: Tensor, patches: Tensor, levels: int) -> Array:
    """Mean |window - patch| of each patch in the window where it is least, averaged over patches, (N,).

    images: uint8 (N, C, H, W). patches: uint8 (N, K, C, side, side).
    """
    side = patches.shape[-1]
    parts = []
    for image, own in zip(torch.split(images, _BATCH), torch.split(patches, _BATCH), strict=True):
        x, wanted = to_unit(image, levels, torch.float64), to_unit(own, levels, torch.float64)
        windows = x.unfold(2, side, 1).unfold(3, side, 1)  # (B, C, rows, columns, side, side)
        least = [
            (windows - patch[:, :, None, None]).abs().mean((1, 4, 5)).flatten(1).amin(1) for patch in wanted.unbind(1)
        ]
        parts.append(torch.stack(least).mean(0))
    return torch.cat(parts).numpy()


def _asked(subject: Subject) -> Requests:
    """The requests of the generated images, each once: a model is asked again only after the last one."""
    assert subject.requests is not None
    assert subject.generated is not None
    return subject.requests.at(0, min(len(subject.generated), len(subject.requests)))
