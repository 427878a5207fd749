"""The report's tables for a paper: LaTeX with booktabs, each a table environment that can be taken by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.report.parts import Content
from bench.report.tables import Column, Datum, Line, Table

_HEAD = """% Tables of TITLE, made by `trilemma report`. In the preamble: \\usepackage{booktabs,graphicx}
% Compile with pdflatex (UTF-8), xelatex or lualatex. Figures lie in figures/ as SVG.
"""
_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "∞": r"$\infty$",
    "µ": r"$\mu$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "⚑": r"$\dagger$",
}
_ROOM = 60
"""Rows of a table: more do not fit on a page."""


def render_latex(content: Content) -> str:
    """All tables of scores, one `table` environment each; published figures stay out, as none was measured here."""
    return "\n".join([_HEAD.replace("TITLE", _comment(content.title)), *_tables(content)])


def escape(text: str) -> str:
    """Text that LaTeX sets as it is: no command, no mathematics, no line break; signs it lacks by their commands."""
    plain = " ".join(text.split())
    return "".join(_SIGNS.get(sign, sign if sign.isprintable() else "?") for sign in plain)


def table(held: Table, label: str, place: str) -> str:
    """A table with its caption and footnotes.

    Args:
        held: what to set; rows that are hidden at first, and those beyond the room of a page, are left out and counted.
        label: for `\\ref`, letters, digits and hyphens.
        place: the data set, for the caption.
    """
    seen = [line for line in held.lines if not line.more]
    lines = seen[:_ROOM]
    columns = "".join("r" if column.numeric else "l" for column in held.columns)
    left_out = len(held.lines) - len(lines)
    caption = f"{held.title} on {place}." if place else f"{held.title}."
    caption += f" {left_out} further rows are in table.csv." if left_out else ""
    notes = [f"\\textsuperscript{{{letter}}}~{escape(text)}" for letter, text in held.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escape(caption)}}}",
            f"\\label{{tab:{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_head(column) for column in held.columns) + r" \\",
            r"\midrule",
            *_body(lines),
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\smallskip\footnotesize " + "; ".join(notes)] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def _tables(content: Content) -> Iterator[str]:
    for section in content.sections:
        place = section.sheet.dataset
        steps = None if section.steps is None else section.steps.table
        exact = None if section.steps is None else section.steps.exact
        held = (section.main, section.structures, exact, steps, section.likelihood, section.cost, section.other)
        for one in held:
            if one is not None and one.lines:
                yield table(one, f"{section.slug}-{one.name}", place)
    for calibration in content.calibrations:
        yield table(calibration.table, f"calibration-{calibration.slug}", calibration.dataset)


def _head(column: Column) -> str:
    return escape(f"{column.title} {column.detail}".strip())


def _body(lines: list[Line]) -> Iterator[str]:
    """Rows; the floor and the ceiling stand apart."""
    for i, line in enumerate(lines):
        if i and line.part != lines[i - 1].part:
            yield r"\addlinespace"
        yield " & ".join(_cell(datum) for datum in line.data) + r" \\"


def _cell(datum: Datum) -> str:
    text = f"\\textbf{{{escape(datum.text)}}}" if datum.best else escape(datum.text)
    mark = f"\\textsuperscript{{{datum.mark}}}" if datum.mark else ""
    flag = r"\textsuperscript{$\dagger$}" if datum.flags else ""
    detail = f" {{\\scriptsize {escape(datum.detail)}}}" if datum.detail else ""
    return text + mark + flag + detail


def _comment(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", " ", text)
