"""What a measuring function returns: measurements, what could not be taken and why, and the raw readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bench.record import Measurement

VERSION = 1
"""Version of the speed, work and memory protocols; raised when one of their numbers changes its meaning."""


@dataclass(frozen=True)
class Measured:
    """Some measurements; parts of it are joined by `merge`."""

    measurements: tuple[Measurement, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # metric -> reason
    raw: Mapping[str, list[float]] = field(default_factory=dict)  # readings in the order taken, for an artifact

    def value(self, metric: str) -> float:
        """The value of the measurement of this name.

        Raises:
            KeyError: if it was not taken.
        """
        for measurement in self.measurements:
            if measurement.metric == metric:
                return measurement.value
        raise KeyError(f"{metric}: {self.skipped.get(metric, 'not measured')}")


def merge(parts: Iterable[Measured]) -> Measured:
    """All parts as one, in their order.

    Raises:
        ValueError: if two parts measure the same metric.
    """
    measurements: list[Measurement] = []
    skipped: dict[str, str] = {}
    raw: dict[str, list[float]] = {}
    for part in parts:
        taken = {m.metric for m in measurements}
        twice = sorted({m.metric for m in part.measurements} & taken) + sorted(set(part.raw) & set(raw))
        if twice:
            raise ValueError(f"expected each metric once, got {', '.join(twice)} twice")
        measurements += part.measurements
        skipped |= part.skipped
        raw |= part.raw
    return Measured(tuple(measurements), skipped, raw)
