"""The sentences at the head of the report, computed from the rows: corners, DDIM against DDPM, references."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from scipy.special import stdtrit

from bench.report.apart import SPEED_TOLERANCE, told_apart
from bench.report.clock import unsteady
from bench.report.marks import commonest_protocol
from bench.report.numbers import KINDS, SIGNS, factor_text, number, score_text
from bench.report.published_order import published_order
from bench.report.ratios import Ratio, by_seed, ratio
from bench.report.rows import Row, Score, Sheet, likelihoods
from bench.stats import CONFIDENCE

_TOLERATED = 1.1
_NAMED = 16  # names in a list, the rest are counted


def findings(sheet: Sheet) -> list[str]:
    """Up to seven sentences; those whose numbers were not measured are left out."""
    order = published_order(sheet)
    told = [_corners(sheet), _few_steps(sheet), _references(sheet), _likelihood(sheet), order, _unsteady(sheet)]
    told = [sentence for sentence in told if sentence]
    return told + _two_seeds(sheet) if any("eparable" in sentence for sentence in told) else told


def _two_seeds(sheet: Sheet) -> list[str]:
    """What two seeds cannot tell, where there are no more."""
    most = max((len({record.cell.seed for record in row.records}) for row in _deep(sheet)), default=0)
    if most != 2:
        return []
    two, three = (number(float(stdtrit(seeds - 1, 0.5 + CONFIDENCE / 2))) for seeds in (2, 3))
    return [
        f"With two seeds, rows are told apart only if they differ by {two} standard errors of the difference (with "
        f"three, {three}): not separable means that these seeds cannot say, not that there is no difference."
    ]


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
        fair = [r for r, other in ranked if other.protocol == score.protocol and r is not winner]
        rivals = [r for r in fair if axis != "speed" or r.model != winner.model]
        least = SPEED_TOLERANCE if axis == "speed" else 0.0
        near = [row.short for row in rivals if not told_apart(winner, row, metric, width, least)]
        usual = commonest_protocol(row.protocol(metric) for row in sheet.all if metric in row.scores)
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
    for slow in (r for r in sheet.rows if r.draw is not None and r.draw.sampler == "ddpm"):
        fast = [r for r in sheet.rows if r.title == slow.title and r.draw is not None and r.draw.sampler == "ddim"]
        scored = [b for r in fast if (b := _bought(r, slow, sheet)) is not None]
        if not scored:
            continue
        within = [b for b in scored if b.fd.value <= _TOLERATED]
        chosen = max(within, key=lambda b: b.faster) if within else min(scored, key=lambda b: b.fd.value)
        assert chosen.row.draw is not None
        seeds = _listed(list(map(str, chosen.seeds)))
        told = (
            f"On the same {slow.title} weights, DDIM with {chosen.row.draw.steps} steps (eta {chosen.row.draw.eta:g}) "
            f"makes images {factor_text(chosen.faster)} as fast as ancestral sampling ({number(chosen.rates[0])} "
            f"against {number(chosen.rates[1])} images/s) at FD {number(chosen.means[0])} against "
            f"{number(chosen.means[1])} ({chosen.fd.text()}, {_verdict(chosen.fd)}; seed"
            f"{'s' * (len(chosen.seeds) > 1)} {seeds})"
        )
        least = min(scored, key=lambda b: (b.row.draw.steps or 0 if b.row.draw else 0, b.fd.value))
        if least.row.draw is not None and least is not chosen and least.row.draw.steps is not None:
            told += f"; at {least.row.draw.steps} steps the FD is {number(least.means[0])}"
        return told + "."
    return ""


class _Bought(NamedTuple):
    """What a draw of few steps buys over the full chain of the same weights, and what it costs."""

    row: Row
    fd: Ratio  # over the full chain's
    means: tuple[float, float]  # FD of both, of the seeds that both have
    rates: tuple[float, float]  # images/s of both
    seeds: tuple[int, ...]

    @property
    def faster(self) -> float:
        return self.rates[0] / self.rates[1]


def _bought(row: Row, slow: Row, sheet: Sheet) -> _Bought | None:
    """None where the two have no FD by one protocol and seed, or no speeds by one protocol."""
    if sheet.quality is None or (fd := ratio(row, slow, sheet.quality)) is None:
        return None
    rates = row.value(sheet.speed), slow.value(sheet.speed)
    if not rates[0] or not rates[1]:
        return None
    assert sheet.speed is not None
    if row.scores[sheet.speed].protocol != slow.scores[sheet.speed].protocol:
        return None
    seeds = tuple(sorted(by_seed(row, sheet.quality).keys() & by_seed(slow, sheet.quality).keys()))
    means = row.mean_at(sheet.quality, seeds), slow.mean_at(sheet.quality, seeds)
    assert means[0] is not None
    assert means[1] is not None
    return _Bought(row, fd, (means[0], means[1]), (rates[0], rates[1]), seeds)


def _verdict(fd: Ratio) -> str:
    """Whether the seeds, or one seed's own intervals, tell the difference from noise."""
    if fd.low is None:
        return "no interval"
    return "higher beyond noise" if fd.above else "lower beyond noise" if fd.below else "not separable"


def _references(sheet: Sheet) -> str:
    """How many deep models stay behind the best of the models that they must beat, and which are not told from it."""
    best: dict[str, tuple[Row, Score]] = {}
    for row, score in _ranked(_deep(sheet), sheet.quality):
        best.setdefault(row.title, (row, score))
    references = _ranked(list(sheet.references), sheet.quality)
    if not best or not references or sheet.quality is None:
        return ""
    reference, bar = references[0]
    width = _widest(score for _, score in (*best.values(), (reference, bar)))
    near = {title for title, (row, _) in best.items() if not told_apart(row, reference, sheet.quality, width)}
    behind = [f"{t} ({number(s.value)})" for t, (_, s) in best.items() if s.value >= bar.value and t not in near]
    even = [f"{title} ({number(score.value)})" for title, (_, score) in best.items() if title in near]
    named = f"the best reference model, {reference.title} (FD {number(bar.value)})"
    unclear = f" Not separable from it at these seeds: {_listed(even)}." if even else ""
    if not behind:
        every = "Every other" if even and len(even) < len(best) else "Every"
        told = f"{every} deep model's best draw has a lower FD than {named}." if len(even) < len(best) else ""
        return told + unclear if told else f"No deep model's best draw is told from {named}: {_listed(even)}."
    verb = "does" if len(behind) == 1 else "do"
    return (
        f"{len(behind)} of {len(best)} deep models {verb} not beat {named}, even by the best draw: {_listed(behind)}."
        f"{unclear}"
    )


def _likelihood(sheet: Sheet) -> str:
    """The lowest bits/dim of each kind; never one against the other."""
    told = []
    for kind in SIGNS:
        every = [(s.value, row.title, s) for row in _deep(sheet) for s in likelihoods(row) if s.kind == kind]
        if every:
            value, title, score = min(every, key=lambda held: held[0])
            ranked = sorted(every, key=lambda held: held[0])
            near = list(dict.fromkeys(name for _, name, s in ranked if name != title and s.overlaps(score, 0.0)))
            tie = f", not separable from {_listed(near)}" if near else ""
            told.append(f"{title} {SIGNS[kind]} {number(value)} ({KINDS[kind]}{tie})")
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
