"""A short document of sentences and tables, free of markup: in the terminal, as Markdown, as one HTML page."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from bench.report import markdown
from bench.report.page import rendered
from bench.report.tables import Column, Datum, Table

NARROW = 110
"""Columns of a terminal under which tables are thinned."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # which terminals obey


@dataclass(frozen=True)
class Document:
    """What a comparison says. Lines of a table that are `more` are shown when asked for."""

    title: str
    command: str  # that made it
    headline: tuple[str, ...]
    findings: tuple[str, ...]
    tables: tuple[Table, ...]
    background: tuple[Table, ...] = ()  # too wide or too long for a terminal
    notes: tuple[str, ...] = ()  # how it was compared
    wide: tuple[str, ...] = ()  # columns that a narrow terminal has no room for


def html(document: Document) -> str:
    """One self-contained page in the report's style; every text is escaped."""
    tables = [*document.tables, *map(_whole, document.background)]
    return rendered("document.html.jinja", document=document, tables=tables)


def as_markdown(document: Document, every: bool = False) -> str:
    """GitHub-flavoured Markdown; every text from records is escaped. every: with the lines that are `more`."""
    parts = [f"### {markdown.escape(document.title)}\n"]
    parts += [f"{markdown.escape(text)}\n" for text in document.headline]
    parts += [f"- {markdown.escape(text)}" for text in document.findings]
    for held in document.tables:
        table, rest = _shown(held, every)
        parts.append(f"\n#### {markdown.escape(table.title)}\n\n{_told(table, rest)}")
    parts += [
        f"\n<details><summary>{markdown.escape(table.title)}</summary>\n\n{markdown.table(_whole(table))}\n\n</details>"
        for table in document.background
    ]
    parts.append("")
    parts += [f"<sub>{markdown.escape(note)}</sub><br>" for note in document.notes]
    return "\n".join(parts).rstrip() + "\n"


def terminal(document: Document, every: bool = False, width: int = NARROW) -> Group:
    """Tables for a terminal.

    Args:
        document: what to show.
        every: with the lines that are `more`.
        width: of the terminal; under NARROW columns it gets neither `wide` columns nor what stands below names.
    """
    left_out = document.wide if width < NARROW else ()
    parts: list[RichTable | Text] = [_text(document.title, "bold")]
    parts += [_text(text, "dim") for text in document.headline]
    for held in document.tables:
        table, rest = _shown(held, every)
        if table.lines:
            parts.append(_rich(table, left_out, width < NARROW))
        else:
            parts.append(_text(f"{table.title}: nothing changed"))
        parts += [_text(rest, "dim")] if rest else []
        parts += [_text(f"({letter}) {text}", "dim") for letter, text in table.notes]
    if found := [c.title for c in _columns(document.tables, left_out)]:
        parts.append(_text(f"For want of {NARROW} columns without: {', '.join(dict.fromkeys(found))}.", "dim"))
    parts += [_text(note, "dim") for note in document.notes]
    parts += [_text(text) for text in document.findings]
    return Group(*parts)


def _columns(tables: Sequence[Table], titles: Collection[str]) -> list[Column]:
    """The columns of these titles."""
    return [column for table in tables for column in table.columns if column.title in titles]


def _whole(table: Table) -> Table:
    return replace(table, lines=tuple(replace(line, more=False) for line in table.lines))


def _shown(table: Table, every: bool) -> tuple[Table, str]:
    """The table as it is shown, and a sentence on the lines that are not."""
    if every or not any(line.more for line in table.lines):
        return _whole(table), ""
    kept = tuple(line for line in table.lines if not line.more)
    hidden = len(table.lines) - len(kept)
    return replace(table, lines=kept), f"{hidden} more line{'s' * (hidden > 1)}: --all shows them, as does the page."


def _told(table: Table, rest: str) -> str:
    text = markdown.table(table) if table.lines else markdown.escape(table.intro)
    return f"{text}\n\n{markdown.escape(rest)}" if rest else text


def _rich(table: Table, left_out: Collection[str], narrow: bool) -> RichTable:
    made = RichTable(title=_text(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    kept = [(i, head) for i, head in enumerate(table.columns) if head.title not in left_out]
    for _, head in kept:
        title = " ".join(part for part in (head.title, head.detail) if part)
        made.add_column(_text(title), justify="right" if head.numeric else "left", overflow="fold")
    for line in table.lines:
        data = [replace(line.data[i], detail="") if narrow and not head.numeric else line.data[i] for i, head in kept]
        made.add_row(*map(_square, data), style="dim" if line.part != "body" else "")
    return made


def _square(datum: Datum) -> Text:
    text = _text(datum.text + (f" ({datum.mark})" if datum.mark else ""), "bold" if datum.best else "")
    if datum.detail:
        text.append("\n").append(_text(datum.detail, "dim not bold"))
    return text


def _text(text: str, style: str = "") -> Text:
    """One line as it is: no markup, no control characters."""
    return Text(_CONTROLS.sub("?", text), style=style)
