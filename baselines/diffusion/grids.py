"""Where solvers of the probability-flow ODE stop, and the options that they read from a draw.

A noise level is sqrt((1 - abar) / abar), the standard deviation of the noise on x_t / sqrt(abar_t): sigma of Karras et
al. 2022 (arXiv:2206.00364), exp(-lambda) of Lu et al. 2022 (arXiv:2206.00927), whose lambda is half the log SNR.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple, cast, get_args

from baselines.diffusion.process import Process, Spacing, subsequence
from baselines.errors import UserError
from baselines.types import Draw

LARGEST_LEVEL, SMALLEST_LEVEL = 80.0, 0.002  # Karras et al., table 1
LARGEST_OF_LOG_SNR = 160.0  # the linear schedule ends at 157; Lu et al. cut the cosine one, which has no end, at 119
LARGEST_OPTION = 1e6  # beyond it float32 overflows in a solver's step
LOG_SNR = "log_snr"


class Option(NamedTuple):
    """A number that a draw's options may hold."""

    default: float
    low: float  # the smallest it may be
    high: float = LARGEST_OPTION  # the largest
    whole: bool = False

    def holds(self, value: float) -> bool:
        """Whether it may be this; nan is in no range."""
        return self.low <= value <= self.high and (not self.whole or value == round(value))

    @property
    def told(self) -> str:
        """What is expected, in words."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} of {self.low:g} " + ("or more" if math.isinf(self.high) else f"to {self.high:g}")


def read_options(draw: Draw, known: Mapping[str, Option]) -> dict[str, float]:
    """Every known option's value, the default where the draw has none.

    Raises:
        UserError: for an option that the sampler does not have, or a value that is no number within its bounds.
    """
    for name in draw.options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"draw.options: {draw.sampler!r} has {', '.join(known) or 'none'}, got {name}{meant}")
    found = {}
    for name, option in known.items():
        value = draw.options.get(name, option.default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not option.holds(value):
            raise UserError(f"options.{name}: expected {option.told}, got {value!r}")
        found[name] = float(value)
    return found


def check_plain(steps: int, draw: Draw, spacing: bool = False) -> None:
    """Refuse what no solver of the ODE has: eta, a variance, no steps at all; and unless `spacing`, a spacing.

    Raises:
        UserError: naming it.
    """
    if steps < 1:
        raise UserError(f"steps: expected at least 1, got {steps}")
    if draw.eta != 0:
        raise UserError(f"sampler {draw.sampler!r} has no eta, got {draw.eta:g}; 'ddim' has one")
    if draw.variance is not None:
        raise UserError(f"sampler {draw.sampler!r} has no variance, got {draw.variance!r}; leave it out")
    if not spacing and draw.spacing != "uniform":
        raise UserError(
            f"sampler {draw.sampler!r} has noise levels of its own, got spacing {draw.spacing!r}; leave it out"
        )


def level(process: Process, t: float) -> float:
    """The noise level at a time; infinite where x_t is pure noise."""
    return math.sqrt(math.expm1(-process.log_abar(t)))


def log_abar_of(noise_level: float) -> float:
    """log abar at a noise level."""
    return -math.log1p(noise_level**2)


def time_of_level(process: Process, noise_level: float) -> float:
    """The time in 0 .. T - 1 that has this noise level; the nearest one outside of the chain's range."""
    time = max(0.0, process.time_of(log_abar_of(noise_level)))
    whole = float(round(time))
    return whole if math.isclose(level(process, whole), noise_level, rel_tol=1e-12) else time


def level_range(process: Process, largest: float, smallest: float) -> tuple[float, float]:
    """Where a solver starts and where it hands over to the predicted x_0: the chain's own range within these bounds.

    A chain that ends in pure noise has no last finite level; there the solver starts at `largest`.

    Raises:
        UserError: if nothing of the chain lies between the two.
    """
    high = min(largest, level(process, process.timesteps - 1))
    low = max(smallest, level(process, 0))
    if not low < high:
        raise UserError(
            f"sigma_min, sigma_max: expected levels within the chain's {level(process, 0):.3g} to "
            f"{level(process, process.timesteps - 1):.3g}, got {smallest:g} and {largest:g}"
        )
    return high, low


def karras_levels(steps: int, high: float, low: float, rho: float) -> list[float]:
    """S falling levels from high to low, evenly spaced in their power 1 / rho (Karras et al., eq. 5); S = 1: high."""
    if steps == 1:
        return [high]
    start, end = high ** (1 / rho), low ** (1 / rho)
    inner = [(start + i / (steps - 1) * (end - start)) ** rho for i in range(1, steps - 1)]
    return [high, *inner, low]


def log_levels(steps: int, high: float, low: float) -> list[float]:
    """S falling levels from high to low, evenly spaced in log SNR; S = 1: high."""
    if steps == 1:
        return [high]
    ratio = math.log(low / high) / (steps - 1)
    return [high, *(high * math.exp(ratio * i) for i in range(1, steps - 1)), low]


def falling_times(process: Process, steps: int, spacing: str) -> list[float]:
    """S times, last first: the timesteps of a spacing, or evenly in log SNR down to timestep 0 (`log_snr`).

    log_snr starts at T - 1, or at the level LARGEST_OF_LOG_SNR where the chain goes beyond it: a chain that ends in
    next to pure noise would spend most of its steps there. One that ends in pure noise and has less than that level
    one timestep before starts at T - 1 in place of T - 2, for there is no level between the two.

    Raises:
        UserError: for steps or a spacing that there are not.
    """
    if spacing not in (*get_args(Spacing), LOG_SNR):
        raise UserError(f"spacing: expected one of {', '.join((*get_args(Spacing), LOG_SNR))}, got {spacing!r}")
    if spacing != LOG_SNR:
        return [float(t) for t in reversed(subsequence(steps, process.timesteps, cast("Spacing", spacing)))]
    end = process.timesteps - 1
    high, low = level_range(process, LARGEST_OF_LOG_SNR, 0.0)
    if math.isfinite(level(process, end)) or level(process, end - 1) >= high:
        return [time_of_level(process, at) for at in log_levels(steps, high, low)]
    after = log_levels(steps, level(process, end - 1), low)[1:]
    return [float(end), *(time_of_level(process, at) for at in after)]
