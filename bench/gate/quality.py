"""Quality and counters of two results folders, paired by seed.

A cell of the base meets the cell of the head with the same model, config, budget, data set, draw, N and seed; a metric
is compared only where both were measured under the same protocol. Of the differences, one a seed (of logarithms where
reports take their intervals so), a regression is a mean whose one-sided t test against the tolerance is significant
after Holm's correction over all that was compared (Holm 1979, Scand. J. Statist. 6, 65-70).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr
from scipy.stats import t as student

from bench.gate.outcome import Row
from bench.record import Measurement
from bench.report.grouping import protocol_of, scale_of
from bench.report.numbers import number
from bench.report.rows import base as family_of
from bench.stats import CONFIDENCE, Scale

ALPHA = (1 - CONFIDENCE) / 2
"""Chance of a false alarm on any of the metrics, where nothing got worse: what lies below a 95 % interval."""

GATED = ("bits_per_dim", "fd", "fid", "coverage")
"""Metric families that are judged unless others are asked for: likelihood, quality and coverage. Every further one
makes each finding less sure, since all that is compared counts."""

TOLERANCE: Mapping[Scale, float] = {"log": 0.02, "share": 0.01, "plain": 0.0}
"""How much worse is no matter: 2 % of positive quantities, one hundredth of shares; by family below."""
TOLERANCE_OF = {"bits_per_dim": 0.01}
"""Bits per dimension: seeds differ by about so much."""

_PLACES = 1e-12  # equal but for the last digits


class Compared(NamedTuple):
    """One metric of one cell but for its seed."""

    name: str  # of the cell and the metric
    base: Sequence[Measurement]  # by seed
    head: Sequence[Measurement]  # of the same seeds


@dataclass(frozen=True)
class Difference:
    """How much worse the head is, on the scale of the comparison; above 0 is worse."""

    name: str
    scale: Scale
    base: float  # mean over the seeds (geometric where the scale is log)
    head: float
    unit: str
    worse: float
    error: float | None  # standard error of `worse`; None where nothing tells
    seeds: int
    tolerance: float
    sign: float  # +1 where lower is better, -1 where higher is
    kind: str  # "paired t", "own intervals", "equal" or "no interval"
    note: str = ""

    @property
    def low_high(self) -> tuple[float, float] | None:
        """The 95 % interval of `worse`."""
        if self.error is None:
            return None
        half = self._quantile(1 - ALPHA) * self.error
        return self.worse - half, self.worse + half

    @property
    def p_worse(self) -> float | None:
        """One-sided: of no more than the tolerance."""
        return self._p(self.worse - self.tolerance)

    @property
    def p_better(self) -> float | None:
        """One-sided: of an improvement by no more than the tolerance."""
        return self._p(-self.worse - self.tolerance)

    def _p(self, beyond: float) -> float | None:
        if self.error is None:
            return None
        if self.error <= _PLACES * max(abs(beyond), 1):
            return 0.0 if beyond > _PLACES else 1.0
        z = -beyond / self.error
        return float(stdtr(self.seeds - 1, z) if self.kind == "paired t" else ndtr(z))  # boards ask for thousands

    def _quantile(self, share: float) -> float:
        return float(student.ppf(share, self.seeds - 1)) if self.kind == "paired t" else float(ndtri(share))


def difference(compared: Compared) -> Difference:
    """How much worse one metric is on the head.

    Two seeds or more: Student's t of the paired differences. One: the two measurements' own intervals as if they were
    independent (half-widths in quadrature), which tell of the images that were drawn and nothing of another training.
    Equal numbers are equal whatever the seeds. Shares are counts: two seeds may differ by the same count by chance,
    which is no reason to be sure, so that the deviation is taken to be no less than that of rounding.
    """
    first = compared.base[0]
    both = [*compared.base, *compared.head]
    scale = scale_of(both)
    sign = -1.0 if first.better == "higher" else 1.0
    a, b = (np.array([_on(m.value, scale) for m in side]) for side in (compared.base, compared.head))
    d = sign * (b - a)
    tolerance = TOLERANCE_OF.get(family_of(first.metric), TOLERANCE[scale])
    kind, note, error = "paired t", "", None
    if np.abs(d).max() <= _PLACES * max(float(np.abs(a).max()), 1):
        kind, error = "equal", 0.0
    elif len(d) > 1:
        error = max(float(d.std(ddof=1)), grain(both, scale)) / math.sqrt(len(d))
    else:
        errors = [_own_error(m, scale) for m in (compared.base[0], compared.head[0])]
        if errors[0] is None or errors[1] is None:
            kind = "no interval"
        else:
            kind, error = "own intervals", math.hypot(errors[0], errors[1])
            note = "one seed: another training may differ by more"
    means = [_back(float(side.mean()), scale) for side in (a, b)]
    return Difference(
        compared.name,
        scale,
        means[0],
        means[1],
        first.unit,
        float(d.mean()),
        error,
        len(d),
        tolerance,
        sign,
        kind,
        note,
    )


def judge(found: Sequence[Difference]) -> list[Row]:
    """A row each; regressions and improvements hold for all of them together (Holm), each side at ALPHA."""
    worse = holm([d.p_worse for d in found])
    better = holm([d.p_better for d in found])
    return [_row(d, worse[i], better[i]) for i, d in enumerate(found)]


def holm(ps: Sequence[float | None], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses fall under Holm's step-down procedure; those without a p stand, and do not count."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    out = [False] * len(ps)
    for rank, (p, i) in enumerate(order):
        if p > alpha / (len(order) - rank):
            break
        out[i] = True
    return out


def same_protocol(base: Measurement, head: Measurement) -> str:
    """Empty where the two may be compared; otherwise what differs, `split: test against train`."""
    if base.unit != head.unit or base.better != head.better or base.kind != head.kind:
        told = [" ".join(map(str, (m.unit or "no unit", m.better, m.kind))) for m in (base, head)]
        return f"unit, direction or kind: {told[0]} against {told[1]}"
    texts = protocol_of(base), protocol_of(head)
    if texts[0] == texts[1]:
        return ""
    a, b = (json.loads(text) for text in texts)
    differ = [key for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]
    return "; ".join(f"{key}: {_short(a.get(key))} against {_short(b.get(key))}" for key in differ)


def _row(d: Difference, worse: bool, better: bool) -> Row:
    told = (number(d.base, _unit(d.unit), 4), number(d.head, _unit(d.unit), 4))
    bounds = d.low_high
    if d.kind == "equal":
        return Row("quality", d.name, "same", *told, "", "equal")
    change = change_told(d, d.worse)
    if bounds is None:
        return Row("quality", d.name, "unclear", *told, change, "1 seed, no interval of its own", d.note)
    change += f" [{interval_told(d)}]"
    p = d.p_worse if d.worse > 0 else d.p_better
    sure = f"{d.seeds} seed{'s' * (d.seeds > 1)}, {d.kind}, p {p:.2g}"
    if worse:
        return Row("quality", d.name, "regression", *told, change, sure, d.note)
    if better:
        return Row("quality", d.name, "improvement", *told, change, sure, d.note)
    if bounds[0] > d.tolerance:
        return Row("quality", d.name, "suspect", *told, change, sure, "beyond its own interval, but not after Holm")
    inside = bounds[1] <= max(d.tolerance, _PLACES)
    return Row("quality", d.name, "same" if inside else "unclear", *told, change, sure, d.note)


def change_told(d: Difference, worse: float) -> str:
    """A difference as readers see the metric: a factor's percent, or the plain difference; its own sign."""
    value = d.sign * worse
    if d.scale == "log":
        return f"{100 * math.expm1(min(value, 700)):+.3g} %"
    return f"{value:+.3g}"


def interval_told(d: Difference) -> str:
    """The 95 % interval of the difference as `change_told` tells it, the lower bound first; empty without one."""
    bounds = d.low_high
    if bounds is None:
        return ""
    return " – ".join(sorted((change_told(d, bounds[0]), change_told(d, bounds[1])), key=_signed))


def _signed(text: str) -> float:
    return float(text.removesuffix(" %"))


def grain(both: Sequence[Measurement], scale: Scale) -> float:
    """Standard deviation that rounding gives a difference of two: of shares to 1/n, of numbers of modes to 1."""
    if family_of(both[0].metric) == "modes":
        return math.sqrt(2 / 12)
    return math.sqrt(2 / 12) / max(1, min(m.n for m in both)) if scale == "share" else 0.0


def _own_error(m: Measurement, scale: Scale) -> float | None:
    """Standard error from a measurement's own interval; of one clipped at 0 or 1 the whole width counts as half."""
    if m.low is None or m.high is None:
        return None
    low, high = m.low, m.high
    z = float(ndtri(1 - ALPHA))
    if scale == "share" and (low <= 0 or high >= 1):
        return max((high - low) / z, grain((m,), scale))
    if scale != "log":
        return (high - low) / (2 * z)
    if low <= 0:
        return (high - low) / (z * m.value)
    return math.log(high / low) / (2 * z)


def _on(value: float, scale: Scale) -> float:
    return math.log(value) if scale == "log" else value


def _back(value: float, scale: Scale) -> float:
    return math.exp(value) if scale == "log" else value


def _unit(unit: str) -> str:
    return unit if unit in ("s", "B") else ""


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
