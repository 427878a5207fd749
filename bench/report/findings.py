"""The sentences at the head of the report, computed from the rows: corners, DDIM against DDPM, references."""

from __future__ import annotations

from collections.abc import Iterable

from bench.report.clock import unsteady
from bench.report.marks import commonest_protocol
from bench.report.numbers import KINDS, SIGNS, factor_text, number, score_text
from bench.report.published_order import published_order
from bench.report.rows import Row, Score, Sheet, likelihoods

_TOLERATED = 1.1
_NAMED = 16  # names in a list, the rest are counted


def findings(sheet: Sheet) -> list[str]:
    """Up to six sentences; those whose numbers were not measured are left out."""
    order = published_order(sheet)
    told = [_corners(sheet), _few_steps(sheet), _references(sheet), _likelihood(sheet), order, _unsteady(sheet)]
    return [sentence for sentence in told if sentence]


def _corners(sheet: Sheet) -> str:
    """Who is first on each axis, and who cannot be told apart from the first.

    In quality all draws take part, in coverage and speed those in the picture: the fastest draw of all is a bad one.
    """
    won: dict[str, list[str]] = {}
    for axis, metric in (("quality", sheet.quality), ("coverage", sheet.coverage), ("speed", sheet.speed)):
        every = _ranked([row for row in _deep(sheet) if row.shown or axis == "quality"], metric)
        if not every or metric is None:
            continue
        ranked = _one_a_sampler(every)
        winner, score = every[0]
        unit = {"quality": "FD ", "coverage": "", "speed": ""}[axis], " images/s" if axis == "speed" else ""
        width = _widest(score for _, score in every)
        rivals = [(r, s) for r, s in ranked if r is not winner and (axis != "speed" or r.model != winner.model)]
        near = [row.short for row, other in rivals if score.overlaps(other, width)]
        usual = commonest_protocol(row.scores[metric] for row in sheet.all if metric in row.scores)
        other = "" if score.protocol == usual and not score.mixed else ", under a protocol unlike most"
        tie = f", not separable from {_listed(near)} at these seeds" if near else ""
        won.setdefault(winner.short, []).append(f"{axis} ({number(score.value).join(unit)}{other}{tie})")
    parts = [f"{name} is first in {_listed(axes)}" for name, axes in won.items()]
    return f"Of the deep models, {_listed(parts, '; ')}." if parts else ""


def _one_a_sampler(ranked: Iterable[tuple[Row, Score]]) -> list[tuple[Row, Score]]:
    """Of each checkpoint and sampler the draw in the picture, or its best where none is; best first."""
    chosen: dict[tuple[str, str], tuple[Row, Score]] = {}
    for row, score in ranked:
        key = row.title, "" if row.draw is None else row.draw.sampler
        if key not in chosen or row.shown:
            chosen[key] = row, score
    return list(chosen.values())


def _widest(scores: Iterable[Score]) -> float | None:
    """Half of the widest interval: what a score without one is taken to have."""
    return max(((b[1] - b[0]) / 2 for score in scores if (b := score.bounds) is not None), default=None)


def _few_steps(sheet: Sheet) -> str:
    """What DDIM buys over ancestral sampling of the same weights, and what it costs, on the seeds that both drew."""
    if sheet.quality is None:
        return ""
    for slow in (r for r in sheet.rows if r.draw is not None and r.draw.sampler == "ddpm"):
        fast = [
            r
            for r in sheet.rows
            if r.model == slow.model and r.variant == slow.variant and r.draw is not None and r.draw.sampler == "ddim"
        ]
        seeds = set(slow.seeds).intersection(*(r.seeds for r in fast))
        before, speed = slow.mean_at(sheet.quality, seeds), slow.value(sheet.speed)
        scored = [(r, fd, v) for r in fast if (fd := r.mean_at(sheet.quality, seeds)) and (v := r.value(sheet.speed))]
        if before is None or speed is None or not scored:
            continue
        within = [item for item in scored if item[1] <= _TOLERATED * before]
        row, fd, rate = max(within, key=lambda i: i[2]) if within else min(scored, key=lambda i: i[1])
        assert row.draw is not None
        shared = _listed([str(seed) for seed in sorted(seeds)])
        told = (
            f"On the same {slow.title} weights, DDIM with {row.draw.steps} steps (eta {row.draw.eta:g}) makes images "
            f"{factor_text(rate / speed)} as fast as ancestral sampling ({number(rate)} against {number(speed)} "
            f"images/s) at FD {number(fd)} against {number(before)} (both of seed{'s' * (len(seeds) > 1)} {shared})"
        )
        least, worst, _ = min(scored, key=lambda i: (i[0].draw.steps or 0 if i[0].draw else 0, i[1]))
        if least.draw is not None and least is not row and least.draw.steps is not None:
            told += f"; at {least.draw.steps} steps the FD is {number(worst)}"
        return told + "."
    return ""


def _references(sheet: Sheet) -> str:
    """How many deep models stay behind the best of the models that they must beat."""
    best: dict[str, Score] = {}
    for row, score in _ranked(_deep(sheet), sheet.quality):
        best.setdefault(row.title, score)
    references = _ranked(list(sheet.references), sheet.quality)
    if not best or not references:
        return ""
    reference, bar = references[0]
    behind = [f"{title} ({number(score.value)})" for title, score in best.items() if score.value >= bar.value]
    named = f"the best reference model, {reference.title} (FD {number(bar.value)})"
    if not behind:
        return f"Every deep model's best draw has a lower FD than {named}."
    verb = "does" if len(behind) == 1 else "do"
    return (
        f"{len(behind)} of {len(best)} deep models {verb} not beat {named}, even by the best draw: {_listed(behind)}."
    )


def _likelihood(sheet: Sheet) -> str:
    """The lowest bits/dim of each kind; never one against the other."""
    best: dict[str, tuple[Row, Score]] = {}
    for row in _deep(sheet):
        for score in likelihoods(row):
            held = best.get(score.kind or "")
            if score.kind in SIGNS and (held is None or score.value < held[1].value):
                best[score.kind] = (row, score)
    told = [
        f"{row.title} {SIGNS[kind]} {number(score.value)} ({KINDS[kind]})"
        for kind in SIGNS
        if kind in best
        for row, score in [best[kind]]
    ]
    if not told:
        return ""
    warning = "; numbers of different kinds are not ranked against each other" if len(told) > 1 else ""
    return f"Lowest bits/dim by kind: {_listed(told)}{warning}.{_behind_pixels(sheet)}"


def _behind_pixels(sheet: Sheet) -> str:
    """Which deep models' likelihood is not better than that of independent pixels, by each one's lowest number."""
    own = [] if sheet.ceiling is None else [s for s in likelihoods(sheet.ceiling) if s.kind == "exact"]
    best: dict[str, Score] = {}
    for row in _deep(sheet):
        for score in likelihoods(row):
            if score.kind in SIGNS and (row.title not in best or score.value < best[row.title].value):
                best[row.title] = score
    if not own or sheet.ceiling is None:
        return ""
    pixels, told = own[0], ""
    apart = {title: score for title, score in best.items() if not score.overlaps(pixels, 0.0)}
    worse = {title: score for title, score in apart.items() if score.value > pixels.value}
    for what, held in (
        ("Worse than", worse),
        ("Not separable from", {t: s for t, s in best.items() if t not in apart}),
    ):
        if held:
            names = [f"{title} {SIGNS[score.kind or '']} {number(score.value)}" for title, score in held.items()]
            told += f" {what} {sheet.ceiling.title} ({score_text(pixels)}): {_listed(names)}."
    bound = any(score.kind == "upper_bound" for score in worse.values())
    return told + (" Of a bound (≤) the true value may lie lower." if bound else "")


def _unsteady(sheet: Sheet) -> str:
    """A warning where a network took longer in one draw than in another: the machine was busy, not the sampler slow."""
    told = [
        f"{title}'s network took between {number(least, 's')} and {number(most, 's')} a call"
        for title, (least, most) in unsteady(sheet).items()
    ]
    return f"The machine was not steady while speeds were taken: {_listed(told)}, at the same batch." if told else ""


def _deep(sheet: Sheet) -> list[Row]:
    """Trained models: exact denoisers have learned nothing, and references are what the others must beat."""
    return [row for row in sheet.rows if not row.model.is_reference and not row.model.is_oracle]


def _ranked(rows: list[Row], metric: str | None) -> list[tuple[Row, Score]]:
    """Rows that have the metric, best first."""
    scored = [(row, row.scores[metric]) for row in rows if metric is not None and metric in row.scores]
    return sorted(scored, key=lambda pair: pair[1].value * (-1 if pair[1].better == "higher" else 1))


def _listed(items: list[str], separator: str = ", ") -> str:
    if len(items) > _NAMED:
        items = [*items[:_NAMED], f"{len(items) - _NAMED} more"]
    if len(items) < 2:
        return "".join(items)
    joint = " and " if separator == ", " else f"{separator}and "
    return separator.join(items[:-1]) + joint + items[-1]
