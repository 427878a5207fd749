"""The sentences about steps, computed from the rows by seed; where an expected effect does not show, they say so.

What is expected is the picture of Song et al. 2020 (arXiv:2010.02502), table 1 and section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.report.clock import Clock, clocks, unsteady
from bench.report.names import SIGMA_HAT
from bench.report.numbers import number
from bench.report.ratios import Ratio, by_seed, ratio
from bench.report.rows import Row, Sheet
from bench.report.steps import Study, study_of
from bench.report.steps_compared import against_exact, by_steps, own_error, trained
from bench.stats import mean_over_seeds

FEW = 20
"""Up to so many steps are few."""

_LINEAR = 0.5  # by which share time may be off at the most calls and still be called linear


def steps_findings(sheet: Sheet) -> list[str]:
    """What shows, and what does not; nothing where the run has no DDIM draws over steps."""
    exact, study = study_of(sheet, exact=True), study_of(sheet)
    told: list[str] = []
    if exact is not None:
        first = (
            f"Exact numbers ({exact.title}): distances of a network without error, computed and not sampled, so they "
            "have neither noise nor bias and any difference is one."
        )
        told += [first, *(f"Exact. {text}" for text in _common(exact) if text)]
    if study is not None:
        told += [*_common(study), trained(study), own_error(study, sheet)]
        told += [against_exact(study, exact)] if exact is not None else []
    title = "" if study is None else study.title
    told += [_linear(clock, sheet) for clock in sorted(clocks(sheet), key=lambda c: c.title != title)[:1]]
    if not any(told):
        return []
    note = (
        "Ratios are of FD, by the seeds that both sides have, in brackets a 95 % interval over two or more seeds "
        "(Student's t), or what one seed's bootstrap intervals allow; an interval that holds 1 shows nothing."
    )
    return [sentence for sentence in (*told, note if study is not None else "") if sentence]


def _common(study: Study) -> list[str]:
    """What is asked of exact and of sampled numbers alike."""
    return [_few(study), _gap(study), *_sigma_hat(study), by_steps(study, "trailing"), by_steps(study, "quadratic")]


def _few(study: Study) -> str:
    """Is eta 0 better than eta 1 and sigma-hat at few steps?"""
    base, others = study.of("eta 0"), study.others("eta 0")
    others = {kind: rows for kind, rows in others.items() if kind in ("eta 1", SIGMA_HAT)}
    shows, fails = [], []
    for steps in (s for s in base if s <= FEW):
        found = _against(others, base[steps], steps, study.quality)
        if not found:
            continue
        if all(r.above for r in found.values()):
            least = min(found, key=lambda kind: found[kind].value)
            shows.append(f"S={steps} (next is {least}, {found[least].text(study.seeds)})")
        else:
            fails.append(f"S={steps} ({_why_not(found, study.seeds)})")
    against = " and ".join(others)
    return _verdict(f"Few steps: eta 0 has a lower FD than {against}", shows, fails)


def _gap(study: Study) -> str:
    """Does what separates eta 1 from eta 0 shrink as the steps grow? Between steps that have the same seeds."""
    zero, one = study.of("eta 0"), study.of("eta 1")
    pairs = {s: r for s in zero if s in one and (r := ratio(one[s], zero[s], study.quality)) is not None}
    most = max((r.seeds for r in pairs.values()), default=0)
    full = [s for s, r in pairs.items() if r.seeds == most]
    if len(full) < 2:
        return ""
    first, last = full[0], full[-1]
    few, many = pairs[first], pairs[last]
    told = f"eta 1 against eta 0 goes from {few.text()} at S={first} to {many.text()} at S={last}"
    rest = [f"{r.text(most)} at S={s}" for s, r in pairs.items() if r.seeds < most]
    told += f" (of fewer seeds {', '.join(rest)})" if rest else ""
    if study.timesteps is not None and max(pairs) < study.timesteps:
        told += f" (S=T={study.timesteps} was not drawn with both)"
    shrunk = _shrinkage(zero, one, first, last, study.quality)
    where = _where([s for s in full if pairs[s].below], full, study.timesteps)
    if many.below and few.above:
        tail = f"the gap does not close but turns round: eta 1 is the better one {where}"
    elif many.below:
        tail = f"eta 1 is the better one {where}"
    elif shrunk is True or (study.exact and abs(math.log(many.value)) < abs(math.log(few.value))):
        tail = "the gap closes, as expected"
    elif shrunk is False or study.exact:
        tail = "the gap does not close, unlike what was expected"
    else:
        tail = "whether the gap closes, these seeds do not tell"
    return f"Towards T: {told}; {tail}."


def _where(found: Sequence[int], every: Sequence[int], total: int | None) -> str:
    """At which steps, in words: `from S=50 on` only where it holds at all drawn from there."""
    if len(found) == 1:
        last = f"S=T={total}" if found[0] == total else f"S={found[0]}"
        return f"at {last} only"
    if list(found) == list(every[-len(found) :]):
        return f"from S={found[0]} on"
    return f"at {', '.join(f'S={s}' for s in found)}"


def _shrinkage(zero: Mapping[int, Row], one: Mapping[int, Row], first: int, last: int, metric: str) -> bool | None:
    """Whether |log ratio| is smaller at the last S than at the first; None where the seeds do not tell."""
    values = [by_seed(row, metric) for row in (zero[first], one[first], zero[last], one[last])]
    seeds = sorted(set.intersection(*(set(v) for v in values)))
    apart = [abs(math.log(b[s] / a[s])) - abs(math.log(d[s] / c[s])) for a, b, c, d in [values] for s in seeds]
    if len(apart) < 2:
        return None
    mean = mean_over_seeds(apart)
    assert mean.low is not None
    assert mean.high is not None
    return True if mean.low > 0 else False if mean.high < 0 else None


def _linear(clock: Clock, sheet: Sheet) -> str:
    """Is the time an image linear in the network calls? Told by how far it may be off, not by a yes or no alone."""
    power, low, high = clock.power
    few, most = clock.reach
    beside = f"{number(1e3 * abs(clock.start))} ms {'less' if clock.start < 0 else 'besides'}"
    told = (
        f"it grows with S^b, b = {power:.3f} [{low:.3f} – {high:.3f}]; {number(1e3 * clock.slope)} ms a network call "
        f"and image (batched), {beside}; the point furthest from that line is off by {clock.worst:.0%}"
    )
    if clock.bent <= _LINEAR:
        within = f"{max(1, math.ceil(100 * clock.bent))} %"
        return f"Time: linear in S within {within} from {few:g} to {most:g} network calls, as expected: {told}."
    busy = "; the machine was not steady, see above" if clock.title in unsteady(sheet) else ""
    return f"Time: not shown to be linear in S: {told}{busy}."


def _sigma_hat(study: Study) -> list[str]:
    """Is sigma-hat worst at few steps and best at T? And against eta 0 and eta 1 at every S."""
    own, others = study.of(SIGMA_HAT), study.others(SIGMA_HAT)
    told, seeds = [], study.seeds
    few = next((s for s in own if any(s in rows for rows in others.values())), None)
    if few is not None and few <= FEW:
        found = _against(others, own[few], few, study.quality)
        if found and all(r.below for r in found.values()):
            nearest = max(found, key=lambda kind: found[kind].value)
            times = found[nearest].inverse.text(seeds)
            told.append(
                f"Sigma-hat at S={few}: the worst, as expected; it has {times} the FD of {nearest}, the nearest."
            )
        elif found:
            reason = _why_not(found, seeds, SIGMA_HAT, False)
            told.append(f"Sigma-hat at S={few}: expected to be the worst, but {reason}.")
    total = study.timesteps
    if total is not None and total in own:
        found = _against(others, own[total], total, study.quality)
        if found and all(r.above for r in found.values()):
            best = min(found, key=lambda kind: found[kind].value)
            times = found[best].text(seeds)
            told.append(f"Sigma-hat at S=T={total}: the best, as expected; the next, {best}, has {times} its FD.")
        elif found:
            told.append(f"Sigma-hat at S=T={total}: expected to be the best, but {_why_not(found, seeds, SIGMA_HAT)}.")
    return [*told, by_steps(study, SIGMA_HAT)]


def _against(others: Mapping[str, Mapping[int, Row]], base: Row, steps: int, metric: str) -> dict[str, Ratio]:
    """Each other kind's FD over the base's at this many steps."""
    found = {kind: ratio(rows[steps], base, metric) for kind, rows in others.items() if steps in rows}
    return {kind: r for kind, r in found.items() if r is not None}


def _why_not(found: Mapping[str, Ratio], seeds: int, base: str = "eta 0", below: bool = True) -> str:
    """Which others are on the wrong side of the base (below it, or above), and which cannot be told apart."""
    other = [f"{kind} has {r.text(seeds)}" for kind, r in found.items() if (r.below if below else r.above)]
    unclear = [f"{kind} ({r.text(seeds)})" for kind, r in found.items() if r.unclear]
    parts = [", ".join(other)] if other else []
    if unclear:
        parts.append(f"not separable from {base}: {', '.join(unclear)}")
    return "; ".join(parts)


def _verdict(claim: str, shows: list[str], fails: list[str]) -> str:
    if not shows and not fails:
        return ""
    if not fails:
        return f"{claim}, as expected, at {', '.join(shows)}."
    if not shows:
        return f"{claim}: this was expected and does not show, at {', '.join(fails)}."
    return f"{claim}: this shows at {', '.join(shows)}, and does not at {', '.join(fails)}."
