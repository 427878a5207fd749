"""Whether a translation between domains can be taken back: the error of source images sent there and back again.

The cycle of StarGAN (Choi et al. 2018, arXiv:1711.09020, eq. 4), measured on held-out images with levels in between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.contract import TranslatesDomains
from baselines.data.likelihood import to_unit
from bench.metrics.attributes import asked_for
from bench.metrics.base import Subject
from bench.metrics.features import protocol_of_images
from bench.record import Measurement, Scope
from bench.stats import mean_over_images

_BATCH = 500


class DomainReconstruction:
    """`reconstruction_l1`: mean |x - G(G(x, c), c')|, pixels in [0, 1], c' the values that x has."""

    name = "reconstruction_l1"
    description = (
        "Mean pixel error, of a range of 1, of images sent to another domain and back; blind to what happens there"
    )
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        if subject.generated is None:
            return "no samples were drawn"
        if not isinstance(subject.model, TranslatesDomains):
            return "the model does not translate between domains"
        if subject.requests is None or subject.requests.originals is None:
            return "the attributes of the source images are not known"
        return None

    @torch.no_grad()
    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number from 0 on, with a normal interval over the source images."""
        asked, model = asked_for(subject), subject.model
        assert isinstance(model, TranslatesDomains)
        assert subject.generated is not None
        assert asked.originals is not None
        assert asked.given.images is not None
        levels, n = subject.generated.shape.levels, len(asked)
        there = torch.cat([*subject.generated.batches(_BATCH)])[:n]
        parts = zip(there.split(_BATCH), asked.originals.split(_BATCH), strict=True)
        back = torch.cat([model.translate(x.to(subject.device), c.to(subject.device)).cpu() for x, c in parts])
        error = mean_over_images(_distances(back, asked.given.images, levels).numpy())
        way = float(_distances(there, asked.given.images, levels).mean())
        return (
            Measurement(
                metric=self.name,
                value=error.value,
                unit="",
                better="lower",
                n=n,
                scope=self.scope,
                low=None if error.low is None else max(error.low, 0.0),
                high=error.high,
                protocol=protocol_of_images(subject, self.version, between="uint8 levels"),
                note=f"the translations themselves lie {way:.4g} from their sources; one that changes nothing has 0; "
                "normal interval over source images",
            ),
        )


def _distances(images: Tensor, others: Tensor, levels: int) -> Tensor:
    """Mean absolute difference of pixels in [0, 1] per image (N,), float64."""
    pixels = (to_unit(x.cpu(), levels, torch.float64) for x in (images, others))
    return (next(pixels) - next(pixels)).abs().mean((1, 2, 3))
