"""The gate's outcome for people and for CI: a table, Markdown for a pull request, JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from bench.gate.outcome import FAILING, WORSE, Outcome, Row
from bench.plain_text import printable
from bench.report.markdown import escape

_STYLES: dict[str, str] = {
    **dict.fromkeys(map(str, FAILING), "bold red"),
    **{
        "accepted": "yellow",
        "suspect": "yellow",
        "refused": "yellow",
        "unclear": "yellow",
        "improvement": "green",
        "same": "dim",
    },
}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MANY = 40  # rows that did not move are counted, not shown, beyond so many in all


def shown(outcome: Outcome, every: bool) -> tuple[list[Row], str]:
    """The rows to show, and a sentence on the rest: equal counters and, of many rows, those that did not move."""
    rows = outcome.sorted_rows()
    if every:
        return rows, ""
    quiet = [r for r in rows if r.verdict == "same" and (r.group == "counter" or len(rows) > _MANY)]
    whole = Counter(r.verdict for r in rows if r.verdict in ("new", "gone", "unclear"))
    quiet += [
        r for r in rows if len(rows) > _MANY and r.verdict in ("new", "gone", "unclear") and whole[r.verdict] > 15
    ]
    hidden = {id(r) for r in quiet}
    counts = Counter((r.group, r.verdict) for r in quiet)
    names = {"counter": "counter", "quality": "score", "time": "time", "cell": "cell"}
    told = ", ".join(f"{n} {names[group]}{'s' * (n > 1)} {verdict}" for (group, verdict), n in counts.items())
    return [r for r in rows if id(r) not in hidden], f"Not shown: {told} (--all)." if told else ""


def terminal(outcome: Outcome, every: bool = False) -> Group:
    """The table, the remarks and the verdict."""
    rows, rest = shown(outcome, every)
    columns = (
        Column("verdict", no_wrap=True),
        Column("what", overflow="fold"),
        *(Column(name, justify="right", no_wrap=True) for name in ("base", "head", "change")),
        Column("how sure", overflow="fold"),
    )
    table = Table(*columns, title=Text(_plain(outcome.title)), title_justify="left", box=SIMPLE, pad_edge=False)
    for row in rows:
        style = _STYLES.get(row.verdict, "")
        sure = " ".join(filter(None, (row.sure, f"({row.note})" if row.note and row.verdict != "same" else "")))
        cells = (row.verdict, row.name, row.base, row.head, row.change, sure)
        table.add_row(*(Text(_plain(text), style=style if i in (0, 4) else "") for i, text in enumerate(cells)))
    notes = [Text(_plain(note), style="dim") for note in (rest, *outcome.notes) if note]
    verdict = Text(outcome.verdict, style="bold red" if outcome.failing else "bold green")
    parts: list[RenderableType] = [table] if rows else [Text(_plain(outcome.title))]
    return Group(*parts, *notes, verdict)


def markdown(outcome: Outcome, every: bool = False) -> str:
    """For a pull request or a job's summary; everything from records, refs and errors is escaped."""
    rows, rest = shown(outcome, every)
    lines = [f"### trilemma gate: {escape(outcome.verdict)}", "", escape(_plain(outcome.title)), ""]
    if rows:
        lines += ["| verdict | what | base | head | change | how sure |", "|---|---|---:|---:|---:|---|"]
        for r in rows:
            sure = " ".join(filter(None, (r.sure, f"({r.note})" if r.note and r.verdict != "same" else "")))
            verdict = f"**{r.verdict}**" if r.verdict in FAILING else r.verdict
            cells = (r.name, r.base, r.head, r.change, sure)
            lines.append(f"| {verdict} | " + " | ".join(escape(_plain(text)) for text in cells) + " |")
        lines.append("")
    notes = [note for note in (rest, *outcome.notes, f"{outcome.seconds:.0f} s" if outcome.seconds else "") if note]
    lines += [f"<sub>{escape(_plain(note))}</sub><br>" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def junit(outcome: Outcome) -> str:
    """A test case a row, a suite a kind of comparison; a regression is a failure, what cannot be told is skipped.

    Elements and attributes are those of Jenkins' junit-10.xsd, which readers of JUnit agree on.
    """
    root = ET.Element("testsuites", name="trilemma gate", time=f"{outcome.seconds:.3f}")
    totals = Counter(tests=0, failures=0, errors=0)
    for group in dict.fromkeys(row.group for row in outcome.rows):
        rows = [row for row in outcome.rows if row.group == group]
        worse = sum(row.verdict in WORSE for row in rows)
        failing = sum(row.verdict in FAILING for row in rows)
        counts = {"tests": len(rows), "failures": worse, "errors": failing - worse}
        totals.update(counts)
        skipped = sum(_skipped(row) for row in rows)
        told = {k: str(n) for k, n in (counts | {"skipped": skipped}).items()}
        suite = ET.SubElement(root, "testsuite", {"name": f"gate.{group}"} | told)
        for row in rows:
            case = ET.SubElement(suite, "testcase", classname=f"gate.{group}", name=_plain(row.name), time="0")
            said = _plain(", ".join(f for f in (f"{row.base} → {row.head}", row.change, row.sure, row.note) if f))
            if row.verdict in FAILING:
                tag = "failure" if row.verdict in WORSE else "error"
                ET.SubElement(case, tag, type=row.verdict, message=f"{row.verdict}: {said}").text = said
            elif _skipped(row):
                ET.SubElement(case, "skipped", message=f"{row.verdict}: {said}")
            else:
                ET.SubElement(case, "system-out").text = f"{row.verdict}: {said}"
    for name, n in totals.items():
        root.set(name, str(n))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _skipped(row: Row) -> bool:
    return row.verdict in ("unclear", "refused", "new", "gone", "trend", "suspect")


def _plain(text: str) -> str:
    """One line without control characters, which XML forbids and terminals obey."""
    return _NO_XML.sub("?", printable(text)).replace("\n", " ").replace("\r", " ")
