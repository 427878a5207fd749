"""The report's tables for a paper: LaTeX with booktabs, each a table environment that can be taken by itself.

A table that is too wide or too long for a page comes in parts, each with the first column and its own label.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bench.report.parts import Content
from bench.report.tables import Column, Datum, Line, Table

_HEAD = """% Tables of TITLE, made by `trilemma report`. In the preamble: \\usepackage{array,booktabs,graphicx}
% Compile with pdflatex (UTF-8), xelatex or lualatex. Figures lie in figures/ as SVG, and with
% `trilemma report --pdf` as PDF: \\includegraphics[width=\\linewidth]{figures/NAME}
"""
_GREEK = {
    name[0]: rf"$\{name[1:]}$"
    for name in (
        *("αalpha", "βbeta", "γgamma", "δdelta", "εvarepsilon", "ζzeta", "ηeta", "θtheta", "ιiota", "κkappa"),
        *("λlambda", "μmu", "νnu", "ξxi", "πpi", "ρrho", "σsigma", "τtau", "υupsilon", "φvarphi", "χchi", "ψpsi"),
        *("ωomega", "ΓGamma", "ΔDelta", "ΘTheta", "ΛLambda", "ΞXi", "ΠPi", "ΣSigma", "ΦPhi", "ΨPsi", "ΩOmega"),
    )
}
_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # behind a line break they would be its arguments
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "∞": r"$\infty$",
    "µ": r"$\mu$",
    "²": r"$^2$",
    "³": r"$^3$",
    "←": r"$\leftarrow$",
    "→": r"$\to$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "⚑": r"$\dagger$",
    **_GREEK,
}
_LETTERS = frozenset("ßæøåœłÆØÅŒŁ")
"""Letters without a decomposition that pdflatex sets in any encoding of its fonts."""
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")

_LONG = 52
"""Lines of a table: more do not fit on a page."""
_MOST = 156
"""Rows that are set; table.csv has the others."""
_WIDE = 470.0
"""Points that a part may be wide: a column of text is 345, to which it is shrunk."""
_HELD = 16
"""Tables between two clearings of the page."""
_TEXT = 34
"""Letters of a text beyond which its column breaks lines."""
_LETTER, _SMALL_LETTER, _GAP = 4.5, 3.8, 9.0
"""Points: an average letter of \\footnotesize and of \\scriptsize, and what is between two columns."""


def render_latex(content: Content) -> str:
    """All tables of scores, one `table` environment each; published figures stay out, as none was measured here."""
    return "\n".join([_HEAD.replace("TITLE", _comment(content.title)), *_with_room(_tables(content))])


def escape(text: str) -> str:
    """Text that LaTeX sets as it is: no command, no mathematics, no line break; signs it lacks by their commands.

    A letter that no font of pdflatex has is told by its number, `[U+65E5]`.
    """
    plain = re.sub(r"(?<![\w-])-(?=\d)", "−", " ".join(text.split()))  # a number's sign, not a hyphen
    return "".join(_sign(sign) + "{}" * (plain[i : i + 2] == "--") for i, sign in enumerate(plain))


def _sign(sign: str) -> str:
    if sign in _SIGNS or (sign.isascii() and sign.isprintable()) or sign in _LETTERS:
        return _SIGNS.get(sign, sign)
    parts = unicodedata.normalize("NFD", sign)
    known = len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS
    if known and sign <= "\u017f":
        return sign
    return f"{{[}}U+{ord(sign):04X}{{]}}" if sign.isprintable() else "?"


def table(held: Table, label: str, place: str) -> str:
    """A table with its caption and footnotes, in as many parts as it needs.

    Args:
        held: what to set; rows that are hidden at first, and those beyond the room of some pages, are left out and
            counted.
        label: for `\\ref`, letters, digits and hyphens; a part's number stands behind it.
        place: the data set, for the caption.
    """
    lines = [line for line in held.lines if not line.more][:_MOST]
    widths = [_width(held, lines, i) for i in range(len(held.columns))]
    parts = [
        (rows, chosen)
        for chosen in _groups(widths)
        for rows in _pages([line for line in lines if len(chosen) == len(widths) or _tells(line, chosen)])
    ]
    left_out = len(held.lines) - len(lines)
    made = []
    for number, (rows, chosen) in enumerate(parts, start=1):
        several = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
        caption = f"{held.title} on {place}{several}." if place else f"{held.title}{several}."
        intervals = held.intervals if number == 1 else ""  # the same in all parts
        caption += "".join(f" {text}" for text in (*_keys(held, rows, chosen), intervals) if text)
        caption += f" {left_out} further rows are in table.csv." if left_out else ""
        part = replace(held, columns=tuple(held.columns[i] for i in chosen), lines=tuple(_cut(rows, chosen)))
        made.append(_part(part, [widths[i] for i in chosen], f"{label}-{number}" if several else label, caption))
    return "\n".join(made)


def _part(held: Table, widths: Sequence[float], label: str, caption: str) -> str:
    kinds = "".join(map(_kind, held.columns, widths))
    used = {datum.mark for line in held.lines for datum in line.data}
    notes = [f"\\textsuperscript{{{letter}}}~{escape(text)}" for letter, text in held.notes if letter in used]
    details = [column.detail for column in held.columns]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escape(caption)}}}",
            f"\\label{{tab:{label}}}",
            r"\smallskip",
            r"\footnotesize\setlength{\tabcolsep}{4.5pt}%",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{@{{}}{kinds}@{{}}}}",
            r"\toprule",
            " & ".join(_head(column, column.title) for column in held.columns) + r" \\",
            *([" & ".join(_head(column, column.detail) for column in held.columns) + r" \\"] if any(details) else []),
            r"\midrule",
            *_body(held.lines),
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\smallskip{\raggedright " + "; ".join(notes) + r"\par}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def _with_room(tables: Iterable[str]) -> Iterator[str]:
    """The tables, all put in their places now and then: LaTeX holds no more than some fifty at a time."""
    waiting = 0
    for one in tables:
        count = one.count(r"\begin{table}")
        if waiting + count > _HELD:
            yield "\\clearpage\n"
            waiting = 0
        waiting += count
        yield one


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


def _keys(held: Table, lines: Sequence[Line], chosen: Sequence[int]) -> Iterator[str]:
    """What bold, small and marked squares mean, as far as a part has them."""
    data = [line.data[i] for line in lines for i in chosen]
    if any(d.detail for line in lines for i, d in enumerate(line.data) if i in chosen and held.columns[i].numeric):
        yield "In small: the interval."
    if any(d.best for d in data):
        yield "Bold: the best of its column, of likelihoods within their kind."
    if any(d.flags for d in data):
        yield "⚑: does not beat every reference model."


def _tells(line: Line, chosen: Sequence[int]) -> bool:
    """Whether a row has anything in these columns, its name apart."""
    return any(line.data[i].text != "–" for i in chosen[1:])


def _width(held: Table, lines: Sequence[Line], i: int) -> float:
    """Of a column's longest text, in points."""
    column = held.columns[i]
    heads = [_LETTER * max(len(column.title), len(column.detail))]
    longest = max(
        [*heads, *(_LETTER * len(d.text) + _SMALL_LETTER * len(d.detail) for d in (x.data[i] for x in lines))]
    )
    return longest if column.numeric else min(longest, _LETTER * _TEXT)


def _kind(column: Column, width: float) -> str:
    if column.numeric:
        return "r"
    return f">{{\\raggedright\\arraybackslash}}p{{{width:.0f}pt}}" if width >= _LETTER * _TEXT else "l"


def _groups(widths: Sequence[float]) -> list[list[int]]:
    """The columns of each part: the first in all, the others in their order as far as there is room."""
    groups, width = [[0]], widths[0]
    for i, own in enumerate(widths[1:], start=1):
        if len(groups[-1]) > 1 and width + own + _GAP > _WIDE:
            groups.append([0])
            width = widths[0]
        groups[-1].append(i)
        width += own + _GAP
    return groups


def _pages(lines: Sequence[Line]) -> list[list[Line]]:
    """The rows of each part."""
    pages, length = list[list[Line]](), _LONG
    for line in lines:
        own = max(1, *(-(-(len(d.text) + len(d.detail)) // _TEXT) for d in line.data if not _is_number(d)), 1)
        if length + own > _LONG:
            pages.append([])
            length = 0
        pages[-1].append(line)
        length += own
    return pages


def _is_number(datum: Datum) -> bool:
    return isinstance(datum.sort, float | int)


def _cut(lines: Sequence[Line], chosen: Sequence[int]) -> Iterator[Line]:
    for line in lines:
        yield replace(line, data=tuple(line.data[i] for i in chosen))


def _head(column: Column, text: str) -> str:
    """Of a column of numbers above their right ends."""
    return escape(text) if column.numeric or not text else f"\\multicolumn{{1}}{{l}}{{{escape(text)}}}"


def _body(lines: Sequence[Line]) -> Iterator[str]:
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
