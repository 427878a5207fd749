"""A short document of sentences and tables, free of markup: in the terminal, as Markdown, as one HTML page."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from bench.report import markdown
from bench.report.page import rendered
from bench.report.tables import Datum, Table

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # which terminals obey


@dataclass(frozen=True)
class Document:
    """What a comparison says. Lines of a table that are `more` are shown on the page, elsewhere when asked for."""

    title: str
    command: str  # that made it
    headline: tuple[str, ...]
    findings: tuple[str, ...]
    tables: tuple[Table, ...]
    background: tuple[Table, ...] = ()  # too wide or too long for a terminal
    notes: tuple[str, ...] = ()  # how it was compared


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


def terminal(document: Document, every: bool = False) -> Group:
    """Tables for a terminal; every: with the lines that are `more`."""
    parts: list[RichTable | Text] = [_text(document.title, "bold")]
    parts += [_text(text, "dim") for text in document.headline]
    for held in document.tables:
        table, rest = _shown(held, every)
        if table.lines:
            parts.append(_rich(table))
        else:
            parts.append(_text(f"{table.title}: nothing changed"))
        parts += [_text(rest, "dim")] if rest else []
        parts += [_text(f"({letter}) {text}", "dim") for letter, text in table.notes]
    parts += [_text(note, "dim") for note in document.notes]
    parts += [_text(text) for text in document.findings]
    return Group(*parts)


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


def _rich(table: Table) -> RichTable:
    made = RichTable(title=_text(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, head in enumerate(table.columns):
        title = " ".join(part for part in (head.title, head.detail) if part)
        made.add_column(
            _text(title), justify="right" if head.numeric else "left", overflow="fold", min_width=0 if i else 12
        )
    for line in table.lines:
        style = "dim" if line.part != "body" else ""
        made.add_row(*map(_square, line.data), style=style)
    return made


def _square(datum: Datum) -> Text:
    text = _text(datum.text + (f" ({datum.mark})" if datum.mark else ""), "bold" if datum.best else "")
    if datum.detail:
        text.append("\n").append(_text(datum.detail, "dim not bold"))
    return text


def _text(text: str, style: str = "") -> Text:
    """One line as it is: no markup, no control characters."""
    return Text(_CONTROLS.sub("?", text), style=style)
