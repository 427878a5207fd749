"""The trilemma table for the end of a run, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.plain_text import printable
from bench.report.axes import Endpoints, axes, axes_told, endpoints, formulas
from bench.report.calibration import calibration_table, study_of
from bench.report.crowd import thinned
from bench.report.exact_table import exact_table
from bench.report.marks import unbeaten_fd
from bench.report.numbers import number, score_text
from bench.report.rows import Row, Sheet, likelihoods
from bench.report.tables import Table as Content

_BARS = " ▁▂▃▄▅▆▇█"


def render(sheets: Iterable[Sheet], all_rows: bool = True) -> Group:
    """One table a data set, with the axes' formulas below.

    all_rows: else those that the page's figures have room for, and what is left out.
    """
    parts: list[Table | Text] = []
    for sheet in sheets:
        study = study_of(sheet)
        if study is not None:
            parts.append(_calibration(calibration_table(study, sheet), sheet.dataset))
        if sheet.corrupted and not sheet.rows:
            continue
        ends = endpoints(sheet)
        few = sheet if all_rows else thinned(sheet)
        parts.append(_table(few, ends))
        shown, every = (sum(row.shown for row in held.rows) for held in (few, sheet))
        if shown < every:
            parts.append(_text(f"{shown} of {every} rows, those of the page's figures; table.csv has all", style="dim"))
        exact = exact_table(sheet)
        parts += [] if exact is None else [_plain(exact, sheet.dataset)]
        if axes_told(sheet):
            parts += [_text(line, style="dim") for line in (*formulas(ends), *ends.missing())]
        if any(unbeaten_fd(row, sheet) for row in few.rows if row.shown):
            parts.append(_text("⚑: a reference model has a lower FD", style="dim"))
    return Group(*parts)


def _calibration(content: Content, dataset: str) -> Table:
    """Rank correlation with each corruption, and the first level told apart, in brackets."""
    table = Table(title=_text(f"{content.title} ({dataset})"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for i, head in enumerate(content.columns):
        table.add_column(_text(head.title), justify="right" if i else "left", overflow="fold")
    for line in content.lines:
        name, floor, *others = line.data
        told = [d.text + (f"\n[{d.detail}]" if "from" in d.detail else "") for d in others]
        table.add_row(*map(_text, (name.text.split()[0], floor.text, *told)))
    return table


def _plain(content: Content, dataset: str) -> Table:
    """A table of numbers as it is, names to the left."""
    title = f"{content.title} ({dataset})"
    table = Table(title=_text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), min_width=len(title))
    for head in content.columns:
        table.add_column(_text(head.title), justify="right" if head.numeric else "left", no_wrap=head.numeric)
    for line in content.lines:
        table.add_row(*(_text(datum.text) for datum in line.data))
    return table


def _table(sheet: Sheet, ends: Endpoints) -> Table:
    table = Table(
        title=_text(f"The trilemma on {sheet.dataset}"),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 0),
    )
    table.add_column("model", overflow="fold", min_width=12)
    heads = ("FD", "cover.", "recall", "images/s", "bits/dim", "quality", "cover.", "speed")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in sheet.all:
        if row.shown:
            edge = row is sheet.floor or row is sheet.ceiling
            table.add_row(*_cells(row, sheet, ends), style="dim" if edge else "", end_section=row is sheet.floor)
    return table


def _cells(row: Row, sheet: Sheet, ends: Endpoints) -> list[Text]:
    flag = " ⚑" if unbeaten_fd(row, sheet) else ""
    metrics = (sheet.quality, sheet.coverage, sheet.recall, sheet.speed)
    values = [row.value(metric) for metric in metrics]
    texts = ["–" if value is None else number(value) for value in values]
    own = likelihoods(row)
    if not row.seeds:
        texts[0] = "failed"
    placed = axes(row, sheet, ends)
    marks = [_bar(v) if row is not sheet.floor else "" for v in placed]
    return [_text(t) for t in (row.short, texts[0] + flag, *texts[1:], score_text(own[0]) if own else "–", *marks)]


def _text(text: str, **how: Any) -> Text:
    """Text of records, in which nothing is obeyed."""
    return Text(printable(text), **how)


def _bar(value: float | None) -> str:
    """`0.87 ▇`; values beyond the endpoints keep their number and have the bar of the endpoint."""
    if value is None:
        return "–"
    return f"{value + 0.0:.2f} {_BARS[round(8 * min(1.0, max(0.0, value)))]}"
