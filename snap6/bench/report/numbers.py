"""Numbers as people read them: three significant digits, units that fit, likelihoods with their kind."""

from __future__ import annotations

import math

from bench.report.rows import Score

SIGNS = {"exact": "=", "upper_bound": "≤", "estimate": "≈"}
KINDS = {"exact": "exact", "upper_bound": "upper bound", "estimate": "estimate"}

_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def number(value: float, unit: str = "", significant: int = 3) -> str:
    """`2.37`, `41,200`, `12.3 ms`, `103 MiB`, `4.10 M` for counts beyond a million."""
    if unit in _SCALES:
        factor, name = next((s for s in _SCALES[unit] if abs(value) >= s[0]), _SCALES[unit][-1])
        return f"{_digits(value / factor, significant)} {name}"
    for factor, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{_digits(value / factor, significant)} {name}"
    return _digits(value, significant)


def score_text(score: Score) -> str:
    """A score's value in its unit; likelihoods bear the sign of their kind: = exact, ≤ bound, ≈ estimate."""
    unit = score.unit if score.unit in _SCALES else ""
    sign = f"{SIGNS[score.kind]} " if score.kind in SIGNS else ""
    return sign + number(score.value, unit)


def interval_text(score: Score) -> str:
    """`2.10 – 2.60`, empty where there is no interval or no width."""
    if score.low is None or score.high is None:
        return ""
    unit = score.unit if score.unit in _SCALES else ""
    low, high = number(score.low, unit), number(score.high, unit)
    if low == high:
        low, high = (number(v, unit, 4) for v in (score.low, score.high))
    if low == high:
        return ""
    if low.partition(" ")[2] == high.partition(" ")[2]:
        low = low.partition(" ")[0]
    return f"{low} – {high}"


def tick(value: float) -> str:
    """A time on an axis: `10 ms`."""
    factor, name = next((s for s in _SCALES["s"] if abs(value) >= 0.999 * s[0]), _SCALES["s"][-1])
    return f"{value / factor:g} {name}"


def factor_text(ratio: float) -> str:
    """`49×`, `1.2×`."""
    return f"{_digits(ratio, 2)}×"


def _digits(value: float, significant: int = 3) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{significant - 1}e}")  # rounding may add a digit: .9999 is 1.00
    decimals = significant - 1 - math.floor(math.log10(abs(rounded)))
    if abs(rounded) < 1e-3:
        return f"{rounded:.{significant - 1}e}"
    return f"{rounded:,.{max(0, decimals)}f}"
