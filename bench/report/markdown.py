"""The report as GitHub-flavoured Markdown, for pull requests and people without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from bench.report.parts import Beside, Calibration, Changes, Content, Section
from bench.report.style import Picture
from bench.report.tables import Datum, Table


def render_markdown(content: Content) -> str:
    """The whole report; figures are linked, all text from records is escaped."""
    return "\n".join(_lines(content)).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line breaks."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", " ".join(text.split()))


def table(content: Table) -> str:
    """A table with its intro and footnotes; rows that are hidden at first are left out."""
    heads = [_head(c.title, c.detail, c.ends) for c in content.columns]
    rules = ["---:" if c.numeric else "---" for c in content.columns]
    rows = [[_cell(d) for d in line.data] for line in content.lines if not line.more]
    body = ["| " + " | ".join(cells) + " |" for cells in (heads, rules, *rows)]
    notes = [f"\n<sup>{letter}</sup> {escape(text)}" for letter, text in content.notes]
    hidden = sum(line.more for line in content.lines)
    more = [f"\n{hidden} further draws are in index.html and table.csv."] if hidden else []
    return "\n".join([f"{escape(content.intro)}\n", *body, *notes, *more])


def _lines(content: Content) -> Iterator[str]:
    yield f"# {escape(content.title)}\n"
    yield from (escape(text) for text in content.headline)
    yield ""
    for note in content.notes:
        yield f"> note: {escape(note)}\n"
    for section in content.sections:
        yield from _section(section)
    if content.changes is not None:
        yield from _changes(content.changes)
    if content.beside is not None:
        yield from _beside(content.beside)
    for calibration in content.calibrations:
        yield from _calibration(calibration)
    if content.coverage is not None:
        yield f"## {content.coverage.title}\n\n{table(content.coverage)}\n"
    if content.failures:
        yield "## Failures\n"
        for failure in content.failures:
            yield f"- **{escape(failure.label)}**, {failure.status}: {escape(failure.error)[:500]}"
            yield f"  run again: {escape(failure.rerun)}"
        yield ""
    for held in content.tables:
        yield f"## {held.title}\n\n{table(held)}\n"
    yield "## Published figures, never measured here\n"
    for held in content.published:
        yield f"### {held.title}\n\n{table(held)}\n"


def _changes(changes: Changes) -> Iterator[str]:
    yield f"## {escape(changes.title)}\n"
    yield from (f"- {escape(text)}" for text in changes.findings)
    for held in changes.tables:
        shown = replace(held, lines=tuple(line for line in held.lines if not line.more))
        if shown.lines:
            yield f"\n### {held.title}\n\n{table(shown)}\n"
    yield from (f"\n{escape(note)}\n" for note in changes.notes)


def _beside(beside: Beside) -> Iterator[str]:
    yield f"## {beside.title}\n\n{escape(beside.intro)}\n"
    yield from (f"- {escape(text)}" for text in beside.findings)
    for group in beside.groups:
        yield f"\n### {escape(group.title)}\n"
        if group.picture is not None:
            yield _picture(group.picture)
        yield f"{table(group.table)}\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## The trilemma on {escape(section.sheet.dataset)}\n"
    yield from (f"- {escape(text)}" for text in section.findings)
    yield ""
    if section.trilemma is not None:
        yield _picture(section.trilemma)
    yield from (f"- {escape(text)}" for text in (*section.formulas, *section.missing))
    yield f"\n### {section.main.title}\n\n{table(section.main)}\n"
    if section.steps is not None:
        yield "### What do steps buy?\n"
        yield from (f"- {escape(text)}" for text in section.steps.findings)
        yield ""
        if section.steps.exact is not None:
            yield f"#### {section.steps.exact.title}\n\n{table(section.steps.exact)}\n"
        for picture in section.steps.pictures:
            yield f"#### {escape(picture.title)}\n\n{_picture(picture)}"
        if section.steps.table is not None:
            yield f"#### {section.steps.table.title}\n\n{table(section.steps.table)}\n"
    for picture in section.pictures:
        yield f"### {escape(picture.title)}\n\n{_picture(picture)}"
    yield from _strips(section)
    if section.grids:
        yield "### Samples\n\nThe first images of each, not picked; the same scale for all.\n"
        for i, grid in enumerate(section.grids):
            yield f"{escape(grid.title)}, {escape(grid.note)}:\n"
            yield f"![{escape(grid.title)}](figures/samples-{section.slug}-{i}.png)\n"
    for held in (section.likelihood, section.published, section.cost, section.other):
        if held is not None and held.lines:
            yield f"### {held.title}\n\n{table(held)}\n"


def _strips(section: Section) -> Iterator[str]:
    for i, held in enumerate(section.strips):
        yield f"### How it works, in pictures: {escape(held.title)}, {escape(held.note)}\n"
        for j, strip in enumerate(held.strips):
            yield f"**{escape(strip.title)}.** {escape(strip.caption)}\n"
            yield f"![{escape(strip.title)}](figures/strip-{section.slug}-{i}-{j}.png)\n"
            yield f"Columns: {escape(', '.join(label.text for label in strip.columns))}.\n"


def _calibration(calibration: Calibration) -> Iterator[str]:
    yield f"## Calibration: every metric against known corruption, on {escape(calibration.dataset)}\n"
    yield from (f"- {escape(text)}" for text in calibration.verdicts)
    yield f"\n### {calibration.table.title}\n\n{table(calibration.table)}\n"
    for picture in calibration.pictures:
        yield f"### {escape(picture.title)}\n\n{_picture(picture)}"


def _picture(picture: Picture) -> str:
    return f"![{escape(picture.title)}](figures/{picture.name}.png)\n\n{escape(picture.caption)}\n"


def _head(title: str, detail: str, ends: str) -> str:
    return " ".join(escape(text) for text in (title, detail, f"({ends})".replace("\n", ", ") if ends else "") if text)


def _cell(datum: Datum) -> str:
    text = f"**{escape(datum.text)}**" if datum.best else escape(datum.text)
    mark = f"<sup>{datum.mark}</sup>" if datum.mark else ""
    flags = f" ⚑ {escape(', '.join(datum.flags))}" if datum.flags else ""
    detail = f" <sub>{escape(datum.detail)}</sub>" if datum.detail else ""
    return text + mark + flags + detail
