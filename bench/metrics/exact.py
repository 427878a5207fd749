"""The Fréchet distance that infinitely many samples would have, where a model knows their moments."""

from __future__ import annotations

from baselines.contract import HasExactMoments, Moments
from baselines.errors import UserError
from bench.metrics.base import Subject
from bench.record import Measurement, Scope


class ExactFrechet:
    """`fd_exact[pixels]`: of the samples' Gaussian from the data's, without the noise and bias of drawing any."""

    name = "fd_exact"
    description = "exact pixel Fréchet distance of an exact denoiser's samples from its data, no sampling noise"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why a model that knows the moments of its samples does not know them here; None of all other models."""
        try:
            _moments(subject)
        except UserError as error:
            return str(error)
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number where the model has exact moments; of other models nothing is asked."""
        moments = _moments(subject)
        if moments is None:
            return ()
        found = Measurement(
            metric=f"{self.name}[pixels]",
            value=frechet_distance(moments),
            unit="",
            better="lower",
            n=1,
            scope=self.scope,
            protocol={
                **subject.protocol,
                "reference": "the fitted Gaussian",
                "pixels": "[-1, 1]",
                "version": self.version,
            },
            note="exact, before samples are rounded and clamped to levels; no samples are drawn for it",
        )
        return (found,)


def frechet_distance(moments: Moments) -> float:
    """Of the two Gaussians: sum of squared differences of means and of standard deviations, axis by axis."""
    means = (moments.mean - moments.data_mean).square()
    deviations = (moments.variance.sqrt() - moments.data_variance.sqrt()).square()
    return float((means + deviations).sum())


def _moments(subject: Subject) -> Moments | None:
    """Computed once a subject; None if the model has none."""
    if not isinstance(subject.model, HasExactMoments) or subject.draw is None:
        return None
    if "exact moments" not in subject.cache:
        subject.cache["exact moments"] = subject.model.exact_moments(subject.draw)
    moments: Moments = subject.cache["exact moments"]
    return moments
