"""Tables of scores, free of markup: HTML, Markdown and the terminal render the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.report.marks import Footnotes, protocol_marks, unbeaten_fd, unbeaten_likelihood
from bench.report.names import SAMPLERS
from bench.report.numbers import KINDS, SIGNS, interval_text, score_text
from bench.report.rows import Row, Score, Sheet, base, likelihoods, variant
from bench.report.source import FAMILIES

_QUALITY = ("fid", "fd", "fid_inf", "fd_inf", "is", "kid", "precision", "recall", "density", "coverage")
NAMES = {
    "fd": "FD",
    "fid": "FID",
    "fd_exact": "exact FD",
    "fd_inf": "FD∞",
    "fid_inf": "FID∞",
    "is": "IS",
    "kid": "KID",
    "ppl": "PPL",
    "nfe": "NFE",
    "flops": "FLOPs",
    "images_per_s": "images/s",
    "latency_s": "latency",
    "latency_device_s": "device latency",
    "training_s": "training time",
    "training_images_per_s": "training images/s",
    "training_images_per_cpu_s": "training images/CPU s",
    "training_cpu_s": "training CPU time",
    "limit_s": "limit",
    "limit_ratio": "ratio to limit",
    "host_peak_bytes": "host peak memory",
}
_ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
LIKELIHOOD = "bits/dim"


@dataclass(frozen=True)
class Datum:
    """One square of a table."""

    text: str
    sort: float | str | None = None  # what sorting goes by; None sorts last
    detail: str = ""  # the interval, in small
    mark: str = ""  # letter of a footnote
    flags: tuple[str, ...] = ()  # reference models that this score does not beat
    best: bool = False  # among the scores of its column (and kind)
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """A column's head."""

    title: str
    detail: str = ""  # features, arrow
    ends: str = ""  # floor and ceiling
    numeric: bool = True
    hint: str = ""  # the metric's full name


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    data: tuple[Datum, ...]
    part: str = "body"  # floor | body | ceiling: the first and the last are not sorted away
    more: bool = False  # shown only when all draws are asked for
    family: str = ""
    facets: tuple[tuple[str, str], ...] = ()  # (what readers filter by, its value here), of rows that have it
    anchor: str = ""  # of the block that tells more of its model


@dataclass(frozen=True)
class Table:
    """Columns, rows and what must be said below."""

    name: str
    title: str
    intro: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...] = ()  # (letter, text)
    intervals: str = ""  # a sentence: which intervals it holds

    def part(self, name: str) -> list[Line]:
        """The lines of one part."""
        return [line for line in self.lines if line.part == name]


def main_table(sheet: Sheet) -> Table:
    """Every row's quality, likelihood and speed, with floor and ceiling beside every score."""
    axes = [m for m in (sheet.quality, sheet.coverage, sheet.recall) if m is not None]
    speeds = [m for m in (sheet.speed, sheet.latency) if m is not None]
    metrics = [*axes, *speeds, *(m for m in quality_metrics(sheet) if m not in axes)]
    notes = Footnotes()
    marks = protocol_marks(sheet.all, metrics, notes)
    likely = protocol_marks(sheet.all, sorted({s.metric for r in sheet.all for s in likelihoods(r)}), notes)
    at = len(axes)
    columns = [column(metric, sheet) for metric in metrics]
    columns.insert(at, Column(LIKELIHOOD, "= ≤ ≈ by kind ↓", _likelihood_ends(sheet)))
    best = _best(sheet, metrics, marks)
    lines, lowest = [], _lowest(sheet)
    for i, row in enumerate(sheet.all):
        data = [datum(row, metric, marks.get((i, metric), ""), best.get(metric) is row) for metric in metrics]
        if sheet.quality in metrics:
            scored = metrics.index(sheet.quality)
            data[scored] = replace(data[scored], flags=tuple(unbeaten_fd(row, sheet)))
        data.insert(at, _likelihood(row, sheet, i, likely, lowest))
        lines.append(line(row, sheet, [name(row), *data]))
    return Table(
        "main",
        "All numbers",
        f"{_INTRO} {(spread := _spread_words(sheet))}",
        (Column("Model", "draw", numeric=False), *columns),
        tuple(lines),
        tuple(notes.listed()),
        spread,
    )


_INTRO = (
    "Mean over seeds, with its interval below. The first row is the floor (real development images against the test "
    "split), the last the ceiling (independent pixels); both stand in the heads too. ⚑ names the reference models that "
    "a deep model does not beat. A raised letter marks a score whose protocol differs from most of its column: do not "
    "rank it with the others. The best of a column is bold, likelihoods within their kind only. A single seed's FD, "
    "IS and mode_kl have reflected bootstrap intervals: they allow for the bias of few samples (FD and mode_kl come "
    "out too high, IS too low) and may lie beside the score."
)


def quality_metrics(sheet: Sheet) -> list[str]:
    """Metrics of samples in the order of the table, those in the quality axis's features first."""
    found = {metric for row in sheet.all for metric in row.scores if base(metric) in _QUALITY}
    return quality_order(found, variant(sheet.quality or ""))


def quality_order(metrics: Iterable[str], features: str = "") -> list[str]:
    """Metrics of samples in the order of tables, unknown ones last, those in the given features first."""

    def place(metric: str) -> tuple[int, bool, str]:
        known = base(metric) in _QUALITY
        return _QUALITY.index(base(metric)) if known else len(_QUALITY), variant(metric) != features, metric

    return sorted(metrics, key=place)


def column(metric: str, sheet: Sheet, ends: bool = True, rows: Sequence[Row] | None = None) -> Column:
    """A metric's head: its name, features, better side, and perhaps floor and ceiling.

    rows: where the metric is looked for; None: all that are compared.
    """
    score = next((row.scores[metric] for row in (sheet.all if rows is None else rows) if metric in row.scores), None)
    title = NAMES.get(base(metric), base(metric).removesuffix("_bytes").replace("_", " "))
    detail = f"{variant(metric)} {_ARROWS[score.better] if score is not None else ''}".strip()
    return Column(title, detail, _ends(metric, sheet) if ends else "", hint=metric)


def _ends(metric: str, sheet: Sheet) -> str:
    told = []
    for name, row in (("floor", sheet.floor), ("ceiling", sheet.ceiling)):
        if row is not None and metric in row.scores and base(metric) in _QUALITY:
            told.append(f"{name} {score_text(row.scores[metric])}")
    return "\n".join(told)


def _likelihood_ends(sheet: Sheet) -> str:
    own = [] if sheet.ceiling is None else likelihoods(sheet.ceiling)
    return f"ceiling {score_text(own[0])}" if own else ""


def _best(sheet: Sheet, metrics: Sequence[str], marks: Mapping[tuple[int, str], str]) -> dict[str, Row]:
    """The deep or reference row with the best score of each metric, of those measured under the usual protocol."""
    best: dict[str, Row] = {}
    for metric in metrics:
        fair = [row for i, row in enumerate(sheet.all) if (i, metric) not in marks and row is not sheet.floor]
        rows = [row for row in fair if metric in row.scores and row.scores[metric].better != "none"]
        if len(rows) > 1:
            sign = -1 if rows[0].scores[metric].better == "higher" else 1
            best[metric] = min(rows, key=lambda row: sign * row.scores[metric].value)
    return best


def name(row: Row) -> Datum:
    """The first square of a row: its label, with seeds and failures below."""
    failed = f" ({row.failed} failed)" if row.failed else ""
    seeds = f"{_seeds(len(set(row.seeds)))}{failed}"
    return Datum(row.label, row.label.lower(), seeds, hint=FAMILIES[row.model.family])


def line(row: Row, sheet: Sheet, data: Sequence[Datum]) -> Line:
    """A table's row, in the part where it belongs."""
    part = "floor" if row is sheet.floor else "ceiling" if row is sheet.ceiling else "body"
    return Line(tuple(data), part, not row.shown, row.model.family, facets(row), sheet.blocks.get(row.model.name, ""))


def facets(row: Row) -> tuple[tuple[str, str], ...]:
    """What a reader may filter rows by: family, sampler, steps, kind of likelihood, as far as the row has them."""
    kinds = [KINDS[s.kind] for s in likelihoods(row)[:1] if s.kind in KINDS]
    draw = row.draw
    steps = [] if draw is None or draw.steps is None else [str(draw.steps)]
    found = {
        "family": FAMILIES[row.model.family],
        "sampler": "" if draw is None else SAMPLERS.get(draw.sampler, draw.sampler),
        "steps": "".join(steps),
        "likelihood": "".join(kinds) or "none",
    }
    return tuple((name, value) for name, value in found.items() if value)


def datum(row: Row, metric: str, mark: str, best: bool) -> Datum:
    """A score's square; where there is no score its reason, in full as a hint, in the open if it is short."""
    score = row.scores.get(metric)
    if score is None:
        reason = row.skipped.get(metric) or row.skipped.get(base(metric)) or ("failed" if not row.seeds else "")
        short = reason if 0 < len(reason) <= 12 else "–"
        return Datum(short, None, hint=reason)
    return Datum(score_text(score), score.value, _detail(row, score), mark, best=best, hint=hint(score))


def _detail(row: Row, score: Score) -> str:
    """The interval; and the number of seeds, where the score has fewer than its row."""
    fewer = _seeds(score.seeds) if score.seeds < len(set(row.seeds)) else ""
    return ", ".join(part for part in (interval_text(score), fewer) if part)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def _lowest(sheet: Sheet) -> dict[str | None, float]:
    """The lowest leading likelihood of each kind that two rows or more have."""
    leads: dict[str | None, list[float]] = {}
    for row in sheet.models:
        for score in likelihoods(row)[:1]:
            leads.setdefault(score.kind, []).append(score.value)
    return {kind: min(values) for kind, values in leads.items() if len(values) > 1}


def _likelihood(
    row: Row, sheet: Sheet, i: int, marks: dict[tuple[int, str], str], lowest: Mapping[str | None, float]
) -> Datum:
    """The row's leading likelihood; sorting goes by kind first, so that kinds are never mixed in a ranking."""
    own = likelihoods(row)
    if not own:
        return datum(row, "bits_per_dim", "", False)
    lead = own[0]
    place = list(SIGNS).index(lead.kind) if lead.kind in SIGNS else len(SIGNS)
    return Datum(
        score_text(lead),
        1e6 * place + lead.value,
        _detail(row, lead),
        marks.get((i, lead.metric), ""),
        tuple(unbeaten_likelihood(row, sheet)),
        lead.value == lowest.get(lead.kind),
        hint(lead),
    )


def hint(score: Score) -> str:
    """What a pointer resting on the number is told."""
    how = {
        "t": f"mean of {score.seeds} seeds, 95 % t interval",
        "range": f"mean of {score.seeds} seeds, their range",
        "own": "one seed, the measurement's own 95 % interval",
        "": f"{_seeds(score.seeds)}, no interval",
    }[score.spread]
    kind = f"; {KINDS[score.kind]}" if score.kind in KINDS else ""
    return f"{score.metric}: {how}{kind}" + (f"; {score.note}" if score.note else "")


def _spread_words(sheet: Sheet) -> str:
    """Which intervals the table holds, in words."""
    words = {
        "t": (
            "Student's t at 95 % where there are three or more seeds, of FD, times, rates and memory on their "
            "logarithms (so that no bound falls below 0; it lies about the geometric mean), of coverage, recall, "
            "precision and other shares cut at 0 and 1"
        ),
        "range": "the range (lowest to highest) where there are two seeds",
        "own": "the measurement's own 95 % interval where there is one seed",
    }
    found = {score.spread for row in sheet.all for score in row.scores.values()}
    told = [words[spread] for spread in words if spread in found]
    return f"Intervals: {'; '.join(told)}." if told else "No row has an interval."
