"""Tables of scores, free of markup: HTML, Markdown and the terminal render the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.marks import Footnotes, protocol_marks, unbeaten_fd, unbeaten_likelihood
from bench.report.numbers import KINDS, SIGNS, interval_text, number, score_text
from bench.report.rows import Row, Score, Sheet, base, likelihoods, variant
from bench.report.source import FAMILIES

_QUALITY = ("fid", "fd", "fid_inf", "fd_inf", "is", "kid", "precision", "recall", "density", "coverage")
_COST = (
)
_NAMES = {
    "fd": "FD",
    "fid": "FID",
    "fd_inf": "FD∞",
    "fid_inf": "FID∞",
    "is": "IS",
    "kid": "KID",
    "nfe": "NFE",
    "flops": "FLOPs",
    "images_per_s": "images/s",
    "latency_s": "latency",
    "latency_device_s": "device latency",
    "training_s": "training time",
    "training_images_per_s": "training images/s",
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


@dataclass(frozen=True)
class Table:
    """Columns, rows and what must be said below."""

    name: str
    title: str
    intro: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...] = ()  # (letter, text)

    def part(self, name: str) -> list[Line]:
        """The lines of one part."""
        return [line for line in self.lines if line.part == name]


def main_table(sheet: Sheet) -> Table:
    """Every row's quality, likelihood and speed, with floor and ceiling beside every score."""
    metrics = _quality_metrics(sheet)
    metrics += [m for m in (sheet.speed, sheet.latency) if m is not None]
    notes = Footnotes()
    marks = protocol_marks(sheet.all, metrics, notes)
    likely = protocol_marks(sheet.all, sorted({s.metric for r in sheet.all for s in likelihoods(r)}), notes)
    at = metrics.index(sheet.speed) if sheet.speed in metrics else len(metrics)
    columns = [_column(metric, sheet) for metric in metrics]
    columns.insert(at, Column(LIKELIHOOD, "= exact ≤ bound ≈ estimate ↓", _likelihood_ends(sheet)))
    best = _best(sheet, metrics)
    lines = []
    for i, row in enumerate(sheet.all):
        data = [
            _datum(row, metric, marks.get((i, metric), ""), best.get(metric) is row) for metric in metrics
        ]
        data = [
            _flagged(datum, unbeaten_fd(row, sheet)) if metric == sheet.quality else datum
            for datum, metric in zip(data, metrics, strict=True)
        ]
        data.insert(at, _likelihood(row, sheet, i, likely))
        lines.append(_line(row, sheet, [_name(row), *data]))
    return Table(
        "main",
        "All numbers",
        _INTRO + (" " + _spread_words(sheet)).rstrip(),
        (Column("Model", "draw", numeric=False), *columns),
        tuple(lines),
        tuple(notes.listed()),
    )


_INTRO = (
    "Mean over seeds, with its interval below. The first row is the floor (real development images against the test "
    "split), the last the ceiling (independent pixels); both stand in the heads too. ⚑ names the reference models that "
    "a deep model does not beat. A raised letter marks a score whose protocol differs from most of its column: do not "
    "rank it with the others. The best of a column is bold, likelihoods within their kind only."
)


def cost_table(sheet: Sheet) -> Table:
    """Parameters, work, times, memory, and whatever else was measured."""
    shown = {*_quality_metrics(sheet)}
    found = {m for row in sheet.models for m in row.scores if m not in shown and base(m) != "bits_per_dim"}
    found |= {m for row in sheet.models for m in row.skipped if m.startswith("gpu")}
    metrics = sorted(found, key=_cost_order)
    notes = Footnotes()
    marks = protocol_marks(sheet.models, metrics, notes)
    lines = [
        _line(row, sheet, [_name(row), *(_datum(row, m, marks.get((i, m), ""), False) for m in metrics)])
        for i, row in enumerate(sheet.models)
    ]
    intro = (
        "What each row costs. NFE is the executed number of network calls of one draw; the limit is NFE times one bare "
        "forward pass, and the ratio says how far the sampler is from it."
    )
    columns = (Column("Model", "draw", numeric=False), *(_column(m, sheet, ends=False) for m in metrics))
    return Table("cost", "Work, time and memory", intro, columns, tuple(lines), tuple(notes.listed()))


def likelihood_table(sheet: Sheet) -> Table:
    """Every likelihood of every training, with its parts."""
    lines, seen = [], set()
    for row in sheet.models:
        for score in likelihoods(row):
            if (row.title, score.metric) in seen:
                continue
            seen.add((row.title, score.metric))
            name = variant(score.metric)
            parts = [
                f"{variant(s.metric).partition(':')[2]} {number(s.value)}"
                for s in row.scores.values()
                if s.better == "none" and variant(s.metric).startswith(f"{name}:")
            ]
            kind = KINDS.get(score.kind or "", "not told")
            data = (
                Datum(row.title, row.title.lower()),
                Datum(name, name),
                Datum(kind, list(KINDS.values()).index(kind) if kind in KINDS.values() else 9),
                Datum(score_text(score), score.value, interval_text(score), hint=_hint(score)),
                Datum(str(score.seeds), score.seeds),
                Datum(", ".join(parts) or "–"),
            )
            lines.append(Line(data, family=row.model.family))
    heads = ("Model", "likelihood", "kind", "bits/dim", "seeds", "parts, bits/dim")
    numeric = (False, False, False, True, True, False)
    columns = tuple(Column(head, numeric=num) for head, num in zip(heads, numeric, strict=True))
    intro = "Numbers of different kinds are not ranked against each other. Parts of a bound add up to it."
    return Table("likelihood", "Likelihoods and their parts", intro, columns, tuple(lines))


def _quality_metrics(sheet: Sheet) -> list[str]:
    found = {metric for row in sheet.all for metric in row.scores if base(metric) in _QUALITY}
    features = variant(sheet.quality or "")
    return sorted(found, key=lambda m: (_QUALITY.index(base(m)), variant(m) != features, m))


def _cost_order(metric: str) -> tuple[int, str, int, str]:
    order = ("cold", "p50", "p90", "p99", "b1", "large")
    known = _COST.index(base(metric)) if base(metric) in _COST else len(_COST)
    inner = variant(metric)
    return (
        known,
        base(metric),
        order.index(inner) if inner in order else -1 if not inner else len(order),
        inner,
    )


def _column(metric: str, sheet: Sheet, ends: bool = True) -> Column:
    score = next((row.scores[metric] for row in sheet.all if metric in row.scores), None)
    title = _NAMES.get(base(metric), base(metric).removesuffix("_bytes").replace("_", " "))
    detail = f"{variant(metric)} {_ARROWS[score.better] if score is not None else ''}".strip()
    return Column(title, detail, _ends(metric, sheet) if ends else "", hint=metric)


def _ends(metric: str, sheet: Sheet) -> str:
    told = []
    for name, row in (("floor", sheet.floor), ("ceiling", sheet.ceiling)):
        if row is not None and metric in row.scores and base(metric) in _QUALITY:
            told.append(f"{name} {score_text(row.scores[metric])}")
    return " · ".join(told)


def _likelihood_ends(sheet: Sheet) -> str:
    own = [] if sheet.ceiling is None else likelihoods(sheet.ceiling)
    return f"ceiling {score_text(own[0])}" if own else ""


def _best(sheet: Sheet, metrics: Sequence[str]) -> dict[str, Row]:
    """The deep or reference row with the best score of each metric that has a better side."""
    best: dict[str, Row] = {}
    for metric in metrics:
        rows = [row for row in sheet.models if metric in row.scores and row.scores[metric].better != "none"]
        if len(rows) > 1:
            sign = -1 if rows[0].scores[metric].better == "higher" else 1
            best[metric] = min(rows, key=lambda row: sign * row.scores[metric].value)
    return best


def _name(row: Row) -> Datum:
    failed = f" ({row.failed} failed)" if row.failed else ""
    seeds = f"{len(row.seeds)} seed{'s' if len(row.seeds) != 1 else ''}{failed}"
    return Datum(row.label, row.label.lower(), seeds, hint=FAMILIES[row.model.family])


def _line(row: Row, sheet: Sheet, data: Sequence[Datum]) -> Line:
    part = "floor" if row is sheet.floor else "ceiling" if row is sheet.ceiling else "body"
    return Line(tuple(data), part, not row.shown, row.model.family)


def _datum(row: Row, metric: str, mark: str, best: bool) -> Datum:
    score = row.scores.get(metric)
    if score is None:
        reason = (
            row.skipped.get(metric) or row.skipped.get(base(metric)) or ("failed" if not row.seeds else "")
        )
        short = reason if 0 < len(reason) <= 12 else "–"
        return Datum(short, None, hint=reason)
    return Datum(score_text(score), score.value, interval_text(score), mark, best=best, hint=_hint(score))


def _flagged(datum: Datum, names: list[str]) -> Datum:
    return Datum(datum.text, datum.sort, datum.detail, datum.mark, tuple(names), datum.best, datum.hint)


def _likelihood(row: Row, sheet: Sheet, i: int, marks: dict[tuple[int, str], str]) -> Datum:
    """The row's leading likelihood; sorting goes by kind first, so that kinds are never mixed in a ranking."""
    own = likelihoods(row)
    if not own:
        return _datum(row, "bits_per_dim", "", False)
    lead = own[0]
    place = list(SIGNS).index(lead.kind) if lead.kind in SIGNS else len(SIGNS)
    leads = [
        theirs[0] for other in sheet.models if (theirs := likelihoods(other)) and theirs[0].kind == lead.kind
    ]
    best = (
        lead.value <= min(score.value for score in leads) and len({s.value for s in leads}) > 1
        if leads
        else False
    )
    datum = Datum(
        score_text(lead),
        1e6 * place + lead.value,
        interval_text(lead),
        marks.get((i, lead.metric), ""),
        best=best,
    )
    datum = _flagged(datum, unbeaten_likelihood(row, sheet))
    return Datum(datum.text, datum.sort, datum.detail, datum.mark, datum.flags, best, _hint(lead))


def _hint(score: Score) -> str:
    """What a pointer resting on the number is told."""
    how = {
        "t": f"mean of {score.seeds} seeds, 95 % t interval",
        "range": f"mean of {score.seeds} seeds, their range",
        "own": "one seed, the measurement's own 95 % interval",
        "": f"{score.seeds} seed{'s' if score.seeds != 1 else ''}, no interval",
    }[score.spread]
    kind = f"; {KINDS[score.kind]}" if score.kind in KINDS else ""
    return f"{score.metric}: {how}{kind}" + (f"; {score.note}" if score.note else "")


def _spread_words(sheet: Sheet) -> str:
    """Which intervals the table holds, in words."""
    words = {
        "t": "Student's t at 95 % where there are three or more seeds",
        "range": "the range (lowest to highest) where there are two seeds",
        "own": "the measurement's own 95 % interval where there is one seed",
    }
    found = {score.spread for row in sheet.all for score in row.scores.values()}
    told = [words[spread] for spread in words if spread in found]
    return f"Intervals: {'; '.join(told)}." if told else "No row has an interval."
