"""The tables beside the main one: costs, likelihoods with their parts, what was skipped, protocols, provenance."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from bench.record import Record
from bench.report.marks import Footnotes, commonest_protocol, flat, protocol_marks
from bench.report.numbers import KINDS, interval_text, number, score_text
from bench.report.rows import Row, Score, Sheet, base, likelihoods, variant
from bench.report.source import FAMILIES
from bench.report.tables import Column, Datum, Line, Table, column, datum, hint, line, name, quality_metrics

_COST = (
    *(
        "parameters",
        "flops",
        "training_images_per_s",
        "training_images_per_cpu_s",
        "training_s",
        "training_cpu_s",
        "nfe",
        "latency_s",
        "latency_device_s",
    ),
    *("images_per_s", "limit_s", "limit_ratio", "host_peak_bytes"),
    *("gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes", "gpu_process_bytes", "gpu_device_bytes"),
)

_LIKELIHOOD_COLUMNS = {"nats": "nats an image", "kl_gap": "above the truth, bits/dim"}
_LIKELIHOODS = frozenset({"bits_per_dim", *_LIKELIHOOD_COLUMNS})  # what the table of likelihoods shows

_OF_ONE_CELL = frozenset({"cell_s", "images", "seconds", "cpu_seconds", "resumed", "best_images", "timed", "not_timed"})
_LISTED = 5  # different values of a field that are worth a line


def cost_table(sheet: Sheet) -> Table:
    """Parameters, work, times, memory."""
    intro = (
        "What each row costs. NFE is the executed number of network calls of one draw; the limit is NFE times one bare "
        "forward pass, and the ratio says how far the sampler is from it."
    )
    metrics = [m for m in _further(sheet) if _is_cost(m)]
    return _metrics_table("cost", "Work, time and memory", intro, sheet, metrics, sheet.models)


def other_table(sheet: Sheet) -> Table | None:
    """Whatever else was measured, with the real images' own numbers where they have some; None if nothing."""
    metrics = [m for m in _further(sheet) if not _is_cost(m)]
    intro = "Measurements that belong to neither the axes, the likelihoods nor the costs."
    floor = sheet.floor is not None and not sheet.floor.scores.keys().isdisjoint(metrics)
    rows = sheet.all if floor else sheet.models
    return _metrics_table("other", "Further measurements", intro, sheet, metrics, rows) if metrics else None


def _metrics_table(kind: str, title: str, intro: str, sheet: Sheet, metrics: list[str], rows: tuple[Row, ...]) -> Table:
    notes = Footnotes()
    marks = protocol_marks(rows, metrics, notes)
    lines = [
        line(row, sheet, [name(row), *(datum(row, m, marks.get((i, m), ""), False) for m in metrics)])
        for i, row in enumerate(rows)
    ]
    columns = (Column("Model", "draw", numeric=False), *(column(m, sheet, ends=False) for m in metrics))
    return Table(kind, title, intro, columns, tuple(lines), tuple(notes.listed()))


def _further(sheet: Sheet) -> list[str]:
    """Metrics that the main table does not show."""
    shown = {*quality_metrics(sheet)}
    found = {m for row in sheet.models for m in row.scores if m not in shown and base(m) not in _LIKELIHOODS}
    found |= {m for row in sheet.models for m in row.skipped if m.startswith("gpu")}
    return sorted(found, key=_cost_order)


def _is_cost(metric: str) -> bool:
    return base(metric) in _COST or base(metric).endswith(("_s", "_bytes"))


def likelihood_table(sheet: Sheet) -> Table:
    """Every likelihood of every training, with its parts."""
    lines, seen = [], set()
    extra = [m for m in _LIKELIHOOD_COLUMNS if any(base(key) == m for row in sheet.models for key in row.scores)]
    for row in sheet.models:
        for score in likelihoods(row):
            if (row.title, score.metric) in seen:
                continue
            seen.add((row.title, score.metric))
            which = variant(score.metric)
            parts = [
                f"{variant(s.metric).partition(':')[2]} {number(s.value)}"
                for s in row.scores.values()
                if s.better == "none" and variant(s.metric).startswith(f"{which}:")
            ]
            kind = KINDS.get(score.kind or "", "not told")
            data = (
                Datum(row.title, row.title.lower()),
                Datum(which, which),
                Datum(kind, list(KINDS.values()).index(kind) if kind in KINDS.values() else 9),
                Datum(score_text(score), score.value, interval_text(score), hint=hint(score)),
                *(_datum(row.scores.get(f"{metric}[{which}]")) for metric in extra),
                Datum(str(score.seeds), score.seeds),
                Datum(", ".join(parts) or "–"),
            )
            anchor = sheet.blocks.get(row.model.name, "")
            facts = (("family", FAMILIES[row.model.family]), ("kind", kind))
            lines.append(Line(data, family=row.model.family, facets=facts, anchor=anchor))
    more = [_LIKELIHOOD_COLUMNS[metric] for metric in extra]
    heads = ("Model", "likelihood", "kind", "bits/dim", *more, "seeds", "parts, bits/dim")
    numeric = (False, False, False, True, *[True] * len(more), True, False)
    columns = tuple(Column(head, numeric=num) for head, num in zip(heads, numeric, strict=True))
    intro = "= exact, ≤ upper bound, ≈ estimate: numbers of different kinds are not ranked against each other."
    return Table("likelihood", "Likelihoods and their parts", intro, columns, tuple(lines))


def _datum(score: Score | None) -> Datum:
    if score is None:
        return Datum("–")
    return Datum(score_text(score), score.value, interval_text(score), hint=hint(score))


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


def skipped_table(sheets: Iterable[Sheet]) -> Table | None:
    """What was not measured, and why; rows of one model and reason are told together."""
    found: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for sheet in sheets:
        for row in (*sheet.all, *sheet.corrupted):
            for metric, reason in row.skipped.items():
                found[sheet.dataset, reason][row.title].add(metric)
    merged: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (dataset, reason), models in found.items():
        for title, metrics in models.items():
            merged[dataset, reason, tuple(sorted(metrics))].append(title)
    lines = [
        _text_line(", ".join(metrics), reason, ", ".join(titles), dataset)
        for (dataset, reason, metrics), titles in merged.items()
    ]
    intro = "Nothing is made up where a number could not be taken."
    return _text_table("skipped", "Skipped, and why", intro, ("metric", "reason", "models", "data set"), lines)


def protocol_table(sheets: Iterable[Sheet]) -> Table | None:
    """The commonest protocol of every metric."""
    protocols: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sheet in sheets:
        for metric in sorted({m for row in sheet.all for m in row.scores}):
            usual = commonest_protocol(row.protocol(metric) for row in sheet.all if metric in row.scores)
            told = "; ".join(f"{field}: {value}" for field, value in flat(json.loads(usual)).items())
            if told:
                protocols[sheet.dataset, told].append(metric)
    lines = [_text_line(", ".join(metrics), dataset, told) for (dataset, told), metrics in protocols.items()]
    intro = "A number holds for its protocol only; where several occur, this is the commonest, and others are marked."
    return _text_table("protocol", "Protocol", intro, ("metric", "data set", "protocol"), lines)


def provenance_table(records: Iterable[Record]) -> Table | None:
    """Where the records came from; a field with several values lists them with their counts.

    Fields that say something else of every cell are left to the records.
    """
    values: dict[str, Counter[str]] = defaultdict(Counter)
    times: list[str] = []
    for record in records:
        fields = flat({name: value for name, value in record.provenance.items() if name not in _OF_ONE_CELL})
        times += [fields.pop("time")] if "time" in fields else []
        for field, value in fields.items():
            values[field][value] += 1
    if times:
        values["measured"][" to ".join(dict.fromkeys((min(times), max(times))))] = 1
    lines = [_text_line(field, _with_counts(counts)) for field, counts in values.items() if len(counts) <= _LISTED]
    return _text_table("provenance", "Provenance", "Where the records came from.", ("field", "value"), lines)


def models_table(sheets: Iterable[Sheet]) -> Table | None:
    """Models with their families, sources and configs."""
    rows: dict[str, Row] = {row.title: row for sheet in sheets for row in (*sheet.all, *sheet.corrupted)}
    lines = []
    for title, row in rows.items():
        cell = row.records[0].cell if row.records else None
        config = "" if cell is None else ", ".join(f"{k}={v}" for k, v in sorted(cell.config.items()))
        budget = "–" if cell is None else cell.budget.label()
        state: Mapping[str, Any] = next(
            (m.protocol["subject"] for r in row.records for m in r.measured if "subject" in m.protocol), {}
        )
        told = "; ".join(f"{k}: {v}" for k, v in flat(dict(state)).items())
        lines.append(_text_line(title, row.model.family, row.model.source or "–", budget, told or "–", config or "–"))
    heads = ("model", "family", "source", "budget", "measured as", "config")
    return _text_table("models", "Models", "What was trained, after which paper, with which settings.", heads, lines)


def _with_counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({n} records)" for value, n in counts.most_common())


def _text_line(*texts: str) -> Line:
    return Line(tuple(Datum(text, text.lower()) for text in texts))


def _text_table(name: str, title: str, intro: str, heads: tuple[str, ...], lines: list[Line]) -> Table | None:
    columns = tuple(Column(head, numeric=False) for head in heads)
    return Table(name, title, intro, columns, tuple(lines)) if lines else None
