"""The sentences about steps, computed from the rows by seed; where an expected effect does not show, they say so.

What is expected is the picture of Song et al. 2020 (arXiv:2010.02502), table 1 and section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.report.numbers import number
from bench.report.rows import Row, Sheet
from bench.report.steps import SIGMA_HAT, Clock, Ratio, Study, by_seed, clocks, ratio, study_of
from bench.stats import mean_over_seeds

FEW = 20
"""Up to so many steps are few."""

_LINEAR = (0.95, 1.05)  # powers of the network calls that are still called linear


def steps_findings(sheet: Sheet) -> list[str]:
    """What shows, and what does not; nothing where the run has no DDIM draws over steps."""
    study = study_of(sheet)
    told = [] if study is None else [_few(study), _gap(study), *_sigma_hat(study), _trailing(study), _trained(study)]
    title = "" if study is None else study.title
    told += [_linear(clock) for clock in sorted(clocks(sheet), key=lambda c: c.title != title)[:1]]
    if not any(told):
        return []
    note = (
        "Ratios are of FD, by the seeds that both sides have, in brackets a 95 % interval over three or more seeds, "
        "the range of two, or what one seed's bootstrap intervals allow; an interval that holds 1 shows nothing."
    )
    return [sentence for sentence in (*told, note) if sentence]


def _few(study: Study) -> str:
    """Is eta 0 better than eta 1 and sigma-hat at few steps?"""
    base, others = study.draws["eta 0", "uniform"], _others(study, "eta 0")
    others = {kind: rows for kind, rows in others.items() if kind in ("eta 1", SIGMA_HAT)}
    shows, fails = [], []
    for steps in (s for s in base if s <= FEW):
        found = _against(others, base[steps], steps, study.quality)
        if not found:
            continue
        if all(r.above for r in found.values()):
            least = min(found, key=lambda kind: found[kind].value)
            shows.append(f"S={steps} (next is {least}, {found[least].text()})")
        else:
            fails.append(f"S={steps} ({_why_not(found)})")
    against = " and ".join(others)
    return _verdict(f"Few steps: eta 0 has a lower FD than {against}", shows, fails)


def _gap(study: Study) -> str:
    """Does what separates eta 1 from eta 0 shrink as the steps grow?"""
    zero, one = study.draws["eta 0", "uniform"], study.draws.get(("eta 1", "uniform"), {})
    both = [s for s in zero if s in one and ratio(one[s], zero[s], study.quality)]
    if len(both) < 2:
        return ""
    first, last = both[0], both[-1]
    few, many = (ratio(one[s], zero[s], study.quality) for s in (first, last))
    assert few is not None
    assert many is not None
    shrunk = _shrinkage(zero, one, first, last, study.quality)
    told = f"eta 1 against eta 0 goes from {few.text()} at S={first} to {many.text()} at S={last}"
    if study.timesteps is not None and last < study.timesteps:
        told += f" (S=T={study.timesteps} was not drawn with both)"
    turned = next((s for s in both if (r := ratio(one[s], zero[s], study.quality)) is not None and r.below), None)
    if few.value > 1 and many.below:
        tail = f"the gap does not close but turns round: from S={turned} on eta 1 is the better one"
    elif shrunk is True:
        tail = "the gap closes, as expected"
    elif shrunk is False:
        tail = "the gap does not close, unlike what was expected"
    else:
        tail = "whether the gap closes, these seeds do not tell"
    return f"Towards T: {told}; {tail}."


def _shrinkage(zero: Mapping[int, Row], one: Mapping[int, Row], first: int, last: int, metric: str) -> bool | None:
    """Whether |log ratio| is smaller at the last S than at the first; None where the seeds do not tell."""
    values = [by_seed(row, metric) for row in (zero[first], one[first], zero[last], one[last])]
    seeds = sorted(set.intersection(*(set(v) for v in values)))
    apart = [abs(math.log(b[s] / a[s])) - abs(math.log(d[s] / c[s])) for a, b, c, d in [values] for s in seeds]
    if len(apart) < 2:
        return None
    if len(apart) == 2:
        low, high = min(apart), max(apart)
    else:
        mean = mean_over_seeds(apart)
        assert mean.low is not None
        assert mean.high is not None
        low, high = mean.low, mean.high
    return True if low > 0 else False if high < 0 else None


def _linear(clock: Clock) -> str:
    """Is the time an image linear in the network calls?"""
    power, low, high = clock.power
    beside = f"{number(1e3 * abs(clock.start))} ms {'less' if clock.start < 0 else 'besides'}"
    told = (
        f"time ~ S^{power:.3f} [{low:.3f} – {high:.3f}]; {number(1e3 * clock.slope)} ms a network call and image "
        f"(batched), {beside}; the point furthest from that line is off by {clock.worst:.0%}"
    )
    if _LINEAR[0] <= low <= high <= _LINEAR[1]:
        return f"Time: linear in S, as expected: {told}."
    return f"Time: not shown to be linear in S: {told}. Was the machine busy?"


def _sigma_hat(study: Study) -> list[str]:
    """Is sigma-hat worst at few steps and best at T?"""
    own, others = study.draws.get((SIGMA_HAT, "uniform"), {}), _others(study, SIGMA_HAT)
    told = []
    few = next((s for s in own if any(s in rows for rows in others.values())), None)
    if few is not None and few <= FEW:
        found = _against(others, own[few], few, study.quality)
        if found and all(r.below for r in found.values()):
            nearest = max(found, key=lambda kind: found[kind].value)
            times = _inverse(found[nearest]).text()
            told.append(
                f"Sigma-hat at S={few}: the worst, as expected; it has {times} the FD of {nearest}, the nearest."
            )
        elif found:
            told.append(f"Sigma-hat at S={few}: expected to be the worst, but {_why_not(found, SIGMA_HAT, False)}.")
    total = study.timesteps
    if total is not None and total in own:
        found = _against(others, own[total], total, study.quality)
        if found and all(r.above for r in found.values()):
            best = min(found, key=lambda kind: found[kind].value)
            told.append(
                f"Sigma-hat at S=T={total}: the best, as expected; the next, {best}, has {found[best].text()} its FD."
            )
        elif found:
            told.append(f"Sigma-hat at S=T={total}: expected to be the best, but {_why_not(found, SIGMA_HAT)}.")
    return told


def _trailing(study: Study) -> str:
    """What trailing timesteps change at the fewest steps."""
    told = []
    for (kind, spacing), rows in study.draws.items():
        uniform = study.draws.get((kind, "uniform"), {})
        steps = next((s for s in rows if s in uniform), None)
        if spacing != "trailing" or steps is None:
            continue
        found = ratio(rows[steps], uniform[steps], study.quality)
        if found is not None:
            effect = "lower" if found.below else "higher" if found.above else "not separable"
            told.append(f"{kind} {found.text()} at S={steps}, {effect}")
    if not told:
        return ""
    trailing = {kind: rows for (kind, spacing), rows in study.draws.items() if spacing == "trailing"}
    steps = min((min(rows) for rows in trailing.values()), default=0)
    fds = {kind: rows[steps].value(study.quality) or math.inf for kind, rows in trailing.items() if steps in rows}
    order = sorted((fd, kind) for kind, fd in fds.items())
    ranked = f"; the order at S={steps} is then {', '.join(kind for _, kind in order)}" if len(order) > 1 else ""
    return f"Trailing against uniform timesteps: {'; '.join(told)}{ranked}."


def _trained(study: Study) -> str:
    """A model trained with T = S against DDIM (eta 0) with S of the long chain's steps."""
    ddim, told, wins, losses = study.draws["eta 0", "uniform"], [], 0, 0
    for total, row in study.trained.items():
        if total not in ddim:
            continue
        found = ratio(row, ddim[total], study.quality)
        if found is None:
            continue
        wins, losses = wins + found.above, losses + found.below
        told.append(f"{found.text()} at {total}{'' if found.above or found.below else ', not separable'}")
    if not told:
        return ""
    long = f"DDIM (eta 0) with S of the {study.timesteps} steps"
    if wins and not losses:
        verdict = f"{long} is the better one wherever the two can be told apart"
    elif losses and not wins:
        verdict = "the model trained for few steps is the better one wherever the two can be told apart"
    elif wins and losses:
        verdict = "neither is better everywhere"
    else:
        verdict = "the seeds do not tell them apart"
    return f"A DDPM trained with T=S against {long}, the same budget: FD {'; '.join(told)}: {verdict}."


def _others(study: Study, but: str) -> dict[str, Mapping[int, Row]]:
    return {kind: rows for (kind, spacing), rows in study.draws.items() if spacing == "uniform" and kind != but}


def _against(others: Mapping[str, Mapping[int, Row]], base: Row, steps: int, metric: str) -> dict[str, Ratio]:
    """Each other kind's FD over the base's at this many steps."""
    found = {kind: ratio(rows[steps], base, metric) for kind, rows in others.items() if steps in rows}
    return {kind: r for kind, r in found.items() if r is not None}


def _inverse(r: Ratio) -> Ratio:
    low, high = (None if bound is None else 1 / bound for bound in (r.high, r.low))
    return Ratio(1 / r.value, low, high, r.seeds)


def _why_not(found: Mapping[str, Ratio], base: str = "eta 0", below: bool = True) -> str:
    """Which others are on the wrong side of the base (below it, or above), and which cannot be told apart."""
    other = [f"{kind} has {r.text()}" for kind, r in found.items() if (r.below if below else r.above)]
    unclear = [f"{kind} ({r.text()})" for kind, r in found.items() if not r.below and not r.above]
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
