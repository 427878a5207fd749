"""What other libraries did beside this one on the same work: sentences, a figure and a table for each kind of work.

Read from `peers.jsonl` of the results folder, which `python -m bench.peers` writes.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from baselines.errors import UserError
from bench.peers import book
from bench.plain_text import printable
from bench.report.drawn import Data, Mark
from bench.report.markdown import escape
from bench.report.numbers import number
from bench.report.parts import Beside, BesideGroup
from bench.report.plots import log_ticks
from bench.report.style import FAINT, INK, Picture, draw
from bench.report.tables import Column, Datum, Line, Table

TITLE = "Beside other libraries"
OWN = "trilemma-bench"  # the package of contenders that are ours too, such as a naive loop
_WIDTH = 70  # letters of a line above dots
_LOOKS = {"faster": ("#0072B2", "o"), "slower": ("#D55E00", "X"), "even": (FAINT, "s"), "unclear": (FAINT, "D")}
_WORDS = {
    "faster": "ours is faster",
    "slower": "theirs is faster",
    "even": "within noise",
    "unclear": "too few rounds for an interval",
}
_COLUMNS = (
    Column("Work", numeric=False),
    Column("Library", numeric=False),
    Column("Time, theirs / ours", "median of the rounds' ratios", hint="above 1: ours is faster"),
    Column("Ours", "median"),
    Column("Theirs", "median"),
    Column("The same answer?", numeric=False),
    Column("Peak memory, ours", "beyond what was there before"),
    Column("theirs"),
)


def beside_of(folder: Path) -> tuple[Beside | None, list[str]]:
    """The part of a report, None where nothing was raced; and notes on a file that cannot be read."""
    try:
        races = [_clean(race) for race in book.load(folder / book.FILE)]
    except UserError as error:
        return None, [printable(str(error))]
    return (_told(races) if races else None), []


def _told(races: Sequence[book.Race]) -> Beside:
    groups = {race.group: [other for other in races if other.group == race.group] for race in races}
    made = [
        BesideGroup(group, _picture(f"beside-{i}", group, held), _table(f"beside-{i}", group, held))
        for i, (group, held) in enumerate(groups.items())
    ]
    return Beside(TITLE, _intro(races), tuple(findings(races)), tuple(made))


def findings(races: Sequence[book.Race]) -> Iterator[str]:
    """Who is faster, where others are, and where answers differ."""
    pairs = [(race, row) for race in races for row in race.rows]
    libraries = [(race, row) for race, row in pairs if row.package != OWN]
    own = [(race, row) for race, row in pairs if row.package == OWN]
    if libraries:
        yield f"{_counted(libraries, 'comparisons')}."
    if own:
        names = ", ".join(dict.fromkeys(row.peer for _, row in own))
        yield f"Beside code of our own ({names}), {_counted(own, 'more')}."
    lost = [(race, row) for race, row in pairs if row.verdict == "slower"]
    if lost:
        yield "Where the other is faster: " + "; ".join(f"{row.peer}, {race.work} ({ratio(row)})" for race, row in lost)
    compared = [(race, row, row.agreement) for race, row in pairs if row.agreement is not None]
    apart = [(race, row, held) for race, row, held in compared if not held.holds]
    if compared:
        yield f"{len(compared) - len(apart)} of {len(compared)} answers that were compared agree."
    by_reason: dict[str, list[str]] = {}
    for race, row, held in apart:
        which = f"{row.peer}, {race.work} ({held.measure} {_found(held)})"
        by_reason.setdefault(held.expected, []).append(which)
    for reason, works in by_reason.items():
        more = f" and {len(works) - 1} work{'s' if len(works) > 2 else ''} more" if len(works) > 1 else ""
        yield f"Not the same answer: {works[0]}{more}{f': {reason}' if reason else ''}."


def _counted(pairs: Sequence[tuple[book.Race, book.Row]], what: str) -> str:
    """`5 comparisons of 2 pieces of work: 4 ours is faster, 1 within noise`."""
    counts: Counter[str] = Counter(row.verdict for _, row in pairs)
    told = [
        f"{counts[verdict]} {words}"
        for verdict, words in (
            ("faster", "ours is faster"),
            ("slower", "the other is faster"),
            ("even", "within noise"),
            ("unclear", "with too few rounds to tell"),
            ("failed", "the other failed"),
        )
        if counts[verdict]
    ]
    return f"{len(pairs)} {what} of {len({race.work for race, _ in pairs})} pieces of work: {', '.join(told)}"


def _intro(races: Sequence[book.Race]) -> str:
    machines = Counter(str(race.provenance.get("cpu") or "an unknown CPU") for race in races)
    named = ", ".join(name for name, _ in machines.most_common(3))
    dates = sorted({str(race.provenance.get("time", ""))[:10] for race in races} - {""})
    when = f" on {dates[0]}" if len(dates) == 1 else f" from {dates[0]} to {dates[-1]}" if dates else ""
    return (
        f"The same work by this suite and by other libraries{when} on {named}, in one process or in processes of their "
        "own, in turns, every other round backwards, one core unless a work says otherwise. A ratio is the median of "
        "the rounds' ratios, its interval that of the median by order statistics (95 %, at least six rounds). Each "
        "stands for itself: of forty works that take equally long about one seems faster and one slower by chance. "
        "Again: tox run -e peers."
    )


def short_table(races: Sequence[book.Race]) -> str:
    """Markdown for README: what was found, and folded below it a line for each piece of work."""
    if not races:
        return "No records yet: `tox run -e peers` makes them."
    lines = ["| Work | ours | others: times as long as ours |", "| --- | ---: | --- |"]
    for race in map(_clean, races):
        others = ", ".join(_short(row) for row in race.rows)
        lines.append(f"| {escape(race.work)} | {number(statistics.median(race.seconds), 's')} | {others} |")
    told = [f"- {escape(text)}" for text in findings(races)]
    folded = ["<details>", f"<summary>All {len(races)} pieces of work</summary>", "", *lines, "", "</details>"]
    return "\n".join([*told, "", *folded, "", f"{escape(_intro(races))} ≠: not the same answer."])


def _short(row: book.Row) -> str:
    """`torch-fidelity **2.7×** [2.6 – 2.8]`, bold where ours is faster beyond doubt."""
    apart = " ≠" if row.agreement is not None and not row.agreement.holds else ""
    value, _, interval = ratio(row).partition(" ")
    value = f"**{value}**" if row.verdict == "faster" else value
    return f"{escape(row.peer)} {value}{f' {interval}' if interval else ''}{apart}"


def ratio(row: book.Row) -> str:
    """`14.2× [13.9 – 14.6]`."""
    if row.ratio is None:
        return "failed"
    between = "" if row.low is None or row.high is None else f" [{number(row.low)} – {number(row.high)}]"
    return f"{number(row.ratio)}×{between}"


def _table(name: str, group: str, races: Iterable[book.Race]) -> Table:
    lines = [Line(_line(race, row, first=row is race.rows[0])) for race in races for row in race.rows]
    return Table(name, group, "", _COLUMNS, tuple(lines))


def _line(race: book.Race, row: book.Row, first: bool) -> tuple[Datum, ...]:
    own = statistics.median(race.seconds)
    work = Datum(race.work, race.work.lower(), race.note if first else "")
    peer = Datum(" ".join(filter(None, (row.peer, row.version))), row.peer.lower(), row.note)
    if row.ratio is None:
        nothing = [Datum("–", hint="failed")] * 2
        return (
            work,
            peer,
            Datum("failed", None, row.error or ""),
            _seconds(own),
            *nothing,
            _bytes(race.peak_bytes),
            nothing[0],
        )
    detail = "" if row.low is None or row.high is None else f"{number(row.low)} – {number(row.high)}, "
    return (
        work,
        peer,
        Datum(f"{number(row.ratio)}×", row.ratio, detail + _WORDS[row.verdict], best=row.verdict == "faster"),
        _seconds(own),
        _seconds(statistics.median(row.seconds) if row.seconds else None),
        _agreement(row.agreement),
        _bytes(race.peak_bytes),
        _bytes(row.peak_bytes),
    )


def _seconds(value: float | None) -> Datum:
    return Datum("–") if value is None else Datum(number(value, "s"), value)


def _bytes(value: int | None) -> Datum:
    return Datum("–", hint="this system does not tell") if value is None else Datum(number(value, "B"), value)


def _agreement(held: book.Agreement | None) -> Datum:
    if held is None:
        return Datum("not compared", 2.0, "draws at random, or nothing to compare")
    why = f"; {held.expected}" if held.expected else ""
    text = "yes" if held.holds else "no"
    return Datum(text, 0.0 if held.holds else 1.0, f"{held.measure} {_found(held)}, allowed {held.allowed:.0e}{why}")


def _found(held: book.Agreement) -> str:
    return "not a number" if held.found is None else f"{held.found:.2g}"


def _picture(name: str, group: str, races: Sequence[book.Race]) -> Picture | None:
    """Dots with intervals over a logarithmic axis, under the name of each work."""
    shown = [(race, row) for race in races for row in race.rows if row.ratio is not None]
    if not shown:
        return None
    heads = {race.work: textwrap.wrap(race.work, _WIDTH) or [""] for race, _ in shown}
    works = list(heads)

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        canvas.set_xscale("log")
        canvas.axvline(1, color=INK, lw=1.2, ls=":", zorder=1)
        place, ticks, count = 0.0, [], 0
        for work in works:
            place += 0.7 * (len(heads[work]) - 1)
            canvas.text(
                0.01,
                place,
                "\n".join(heads[work]),
                transform=canvas.get_yaxis_transform(),
                fontsize=8.5,
                va="bottom",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                zorder=4,
            )
            for race, row in shown:
                if race.work == work:
                    place += 1
                    _dot(canvas, row, place, f"mark{count}")
                    ticks.append((place, row.peer))
                    count += 1
            place += 1.3
        canvas.set_yticks([y for y, _ in ticks], [peer for _, peer in ticks], fontsize=8.5)
        canvas.set_ylim(place - 0.4, -1.2)
        canvas.margins(x=0.08)
        canvas.grid(axis="y", visible=False)
        low, high = canvas.get_xlim()
        canvas.set_xlim(min(low, 0.8), max(high, 1.25))
        canvas.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        canvas.xaxis.set_minor_formatter(lambda value, _: "")
        log_ticks(canvas.xaxis)
        canvas.set_xlabel("time, theirs / ours  (right of 1: ours is faster)")

    verdicts = dict.fromkeys(row.verdict for _, row in shown)
    signs = {"faster": "blue discs", "slower": "red crosses", "even": "grey squares", "unclear": "grey diamonds"}
    told = ", ".join(f"{signs[v]}: {_WORDS[v]}" for v in signs if v in verdicts)
    caption = f"How many times as long the others take for the same work, with the interval; {told}."
    data = Data(
        ("work", "library", "version", "ratio", "low", "high"),
        tuple(
            (race.work, row.peer, row.version or "", f"{row.ratio:.6g}", _plain(row.low), _plain(row.high))
            for race, row in shown
        ),
    )
    marks = [_mark(race, row) for work in works for race, row in shown if race.work == work]
    height = 0.9 + 0.22 * (len(shown) + 1.3 * len(works) + 0.7 * sum(len(head) - 1 for head in heads.values()))
    return draw(name, f"{TITLE}: {group}", caption, (6.4, height), paint, marks, data)


def _dot(canvas: Axes, row: book.Row, place: float, name: str) -> None:
    hue, sign = _LOOKS[row.verdict]
    assert row.ratio is not None
    if row.low is not None and row.high is not None:
        canvas.plot([row.low, row.high], [place, place], color=hue, lw=1.6, zorder=2)
    canvas.scatter(
        [row.ratio], [place], s=34, c=hue, marker=sign, edgecolors="white", linewidths=0.6, zorder=3, gid=name
    )


def _mark(race: book.Race, row: book.Row) -> Mark:
    lines = (ratio(row), _WORDS[row.verdict])
    return Mark(f"{row.peer}: {race.work}", lines)


def _plain(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _clean(race: book.Race) -> book.Race:
    """Without what a terminal obeys or an SVG cannot hold."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return printable(value).replace("\n", " ").encode(errors="replace").decode()  # no half of a surrogate pair
        if isinstance(value, dict):
            return {clean(k): clean(v) for k, v in value.items()}
        return [clean(item) for item in value] if isinstance(value, list | tuple) else value

    return book.Race.model_validate(clean(race.model_dump(by_alias=True)))
