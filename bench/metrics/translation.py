"""How far translated images are from the right answers, and from themselves once they are translated back.

Zhu et al. 2017, arXiv:1703.10593: a cycle's L1 distance is what CycleGAN is trained for (eq. 2), which tells little of
the translation itself; where data are generated the right answer is known, and the paired error is measured.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.contract import Translates
from baselines.data.likelihood import to_unit
from baselines.given import Requests
from bench.metrics.base import Array, Subject
from bench.metrics.features import protocol_of_images
from bench.record import Measurement, Scope
from bench.stats import mean_over_images

_BATCH = 500


def distances(first: Tensor, second: Tensor, levels: int, levels_of_second: int | None = None) -> Array:
    """(N,) mean absolute difference of pixels in [0, 1], of two sets of uint8 (N, C, H, W)."""
    a = to_unit(first.cpu(), levels, torch.float64)
    b = to_unit(second.cpu(), levels_of_second or levels, torch.float64)
    return np.asarray((a - b).abs().flatten(1).mean(1).numpy(), np.float64)


class PairedError:
    """`paired_error` of the translations, and `paired_error[source]`, that of leaving every source as it is."""

    name = "paired_error"
    description = "Mean absolute difference of translated images from the right answers, which training never saw"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no error; None if there is one."""
        if subject.generated is None:
            return "no samples were drawn"
        if subject.requests is None or subject.requests.given.images is None:
            return "the model was given no images to translate"
        if subject.requests.answers is None:
            return "the data set has no right answers"
        if subject.requests.answers.shape[1:] != subject.generated.shape.chw:
            got = subject.generated.shape.chw
            return f"needs samples of the answers' size {tuple(subject.requests.answers.shape[1:])}, got {got}"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Numbers in [0, 1] with normal intervals over the images; each request counts once."""
        assert subject.generated is not None
        assert subject.requests is not None
        levels = subject.generated.shape.levels
        asked = subject.requests.at(0, min(len(subject.generated), len(subject.requests)))
        assert asked.answers is not None
        drawn = torch.cat(list(subject.generated.batches(_BATCH)))[: len(asked)]
        errors = distances(drawn, asked.answers, levels)
        left = _left_alone(subject, asked, levels)
        note = "normal interval over images"
        if left is not None and left.mean() > 0:
            note = f"{errors.mean() / left.mean():.3f} of that of the sources themselves, {left.mean():.4f}; {note}"
        told = [self._measurement(subject, self.name, errors, note)]
        if left is not None:
            note = "of the sources themselves, as if nothing were translated; normal interval over images"
            told.append(self._measurement(subject, f"{self.name}[source]", left, note))
        return tuple(told)

    def _measurement(self, subject: Subject, metric: str, errors: Array, note: str) -> Measurement:
        found = mean_over_images(errors)
        return Measurement(
            metric=metric,
            value=found.value,
            unit="",
            better="lower" if metric == self.name else "none",
            n=len(errors),
            scope=self.scope,
            low=found.low,
            high=found.high,
            protocol=protocol_of_images(subject, self.version, pixels="level / (levels - 1)"),
            note=note,
        )


class CycleDistance:
    """`cycle_l1`: how far the sources are from what comes back when they are translated there and back."""

    name = "cycle_l1"
    description = "Mean absolute difference of images from what they become when translated there and back"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        if not isinstance(subject.model, Translates):
            return "the model does not translate both ways"
        if subject.requests is None or subject.requests.given.images is None:
            return "the model was given no images to translate"
        return None

    @torch.no_grad()
    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """A number in [0, 1] with a normal interval over the test split's sources; images are rounded on both ways."""
        assert isinstance(subject.model, Translates)
        assert subject.requests is not None
        assert subject.dataset is not None
        given = subject.requests.given.images
        assert given is not None
        source = subject.dataset.conditions.source or subject.dataset.shape
        parts = []
        for x in torch.split(given, _BATCH):
            again = subject.model.back(subject.model.translate(x.to(subject.device)))
            parts.append(distances(again, x, source.levels))
        errors = np.concatenate(parts)
        found = mean_over_images(errors)
        return (
            Measurement(
                metric=self.name,
                value=found.value,
                unit="",
                better="lower",
                n=len(errors),
                scope=self.scope,
                low=found.low,
                high=found.high,
                protocol={
                    **subject.protocol,
                    "split": "test",
                    "pixels": "level / (levels - 1)",
                    "between": "rounded to levels",
                    "version": self.version,
                },
                note="0 says that nothing was lost on the way, not that the translation is right; normal interval "
                "over images",
            ),
        )


def _left_alone(subject: Subject, asked: Requests, levels: int) -> Array | None:
    """The error of the sources themselves; None where they are of another size."""
    sources, answers = asked.given.images, asked.answers
    assert sources is not None
    assert answers is not None
    assert subject.dataset is not None
    if sources.shape[1:] != answers.shape[1:]:
        return None
    source = subject.dataset.conditions.source
    return distances(sources, answers, levels if source is None else source.levels, levels)
