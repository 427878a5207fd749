"""The leaderboard in sentences and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baselines.config import nearest
from baselines.errors import UserError
from bench.compare.boards import BITS, Board, Entry, Group, Unranked, boards, groups, protocol_told
from bench.compare.folders import Folder, folders_table, open_folders
from bench.compare.ranks import MOST, Place, places
from bench.gate.quality import ALPHA
from bench.report.document import Document
from bench.report.grouping import SPEED_UNITS
from bench.report.marks import flat
from bench.report.numbers import KINDS, interval_text, score_text
from bench.report.rows import Score, base, variant
from bench.report.tables import NAMES, Column, Datum, Line, Table

SPEEDS = ("images_per_s", "latency_s", "training_images_per_s", "training_s")
"""Their boards name the device."""
BY = {"fd": ("fd", "fid"), "coverage": ("coverage",), "images_per_s": ("images_per_s",), "bits": (BITS,)}
"""What is ranked unless asked otherwise: quality, coverage, speed, likelihood."""
FIRST = 15
"""Places that a terminal shows unasked."""
_ARROWS = {"lower": "lower is better", "higher": "higher is better"}


@dataclass(frozen=True)
class Standings:
    """All boards with the places on them."""

    folders: tuple[Folder, ...]
    groups: tuple[Group, ...]
    boards: tuple[tuple[Board, list[Place]], ...]
    unranked: tuple[Unranked, ...]
    copies: int  # records that several folders hold, counted once
    left_out: tuple[Path, ...] = ()  # of the paths that were given, what is no results folder


def rank(
    paths: Sequence[Path], by: Sequence[str] = (), datasets: Sequence[str] = (), all_draws: bool = False
) -> Standings:
    """Merge results folders and rank what is comparable.

    Args:
        paths: results folders; what lies beside such folders, as `results/*` also names it, is left out and told.
        by: of BY, or other metric families; empty: all of BY.
        datasets: only these; empty: all.
        all_draws: every draw of a model; else one for each sampler, as reports choose it.

    Raises:
        UserError: if a folder cannot be read, a metric or data set is in none, or nothing can be ranked.
    """
    left_out = tuple(path for path in paths if path.exists() and not (path / "records").is_dir())
    folders = open_folders([path for path in paths if path not in left_out] or paths)
    records = [r for folder in folders for r in folder.source.records]
    known = list(dict.fromkeys(r.cell.dataset for r in records))
    for name in datasets:
        if name not in known:
            raise UserError(f"--dataset: expected a data set of these folders, got {name!r}{nearest(name, known)}")
    measured = {base(m.metric) for r in records for m in r.measured if m.better != "none"}
    families: list[str] = []
    for name in by or BY:
        if name not in BY and name not in measured:
            choice = [*BY, *sorted(measured - set(BY) - {"fid", BITS})]
            raise UserError(f"--by: expected a metric family of these folders, got {name!r}{nearest(name, choice)}")
        families += BY.get(name, (name,))
    found, copies = groups(folders, families)
    made, unranked = boards(found, list(dict.fromkeys(families)), datasets, all_draws)
    if not made and not unranked:
        raise UserError(
            f"leaderboard: expected scores of {', '.join(families)} in {', '.join(f.name for f in folders)}, got none"
        )
    ranked = tuple((board, places(board)) for board in made)
    return Standings(tuple(folders), tuple(found), ranked, tuple(unranked), copies, left_out)


def document(standings: Standings) -> Document:
    """The leaderboard, ready to be shown."""
    told = [table for table in (_unranked(standings.unranked), folders_table(standings.folders)) if table is not None]
    count = len(standings.folders)
    names = titles([board for board, _ in standings.boards])
    held = list(zip(names, standings.boards, strict=True))
    return Document(
        title="Leaderboard",
        command="leaderboard",
        headline=(f"{count} results folder{'s' * (count != 1)}: {', '.join(f.name for f in standings.folders)}.",),
        findings=tuple(_finding(name, places) for name, (_, places) in held),
        tables=tuple(_table(i, name, board, places) for i, (name, (board, places)) in enumerate(held, start=1)),
        background=tuple(told),
        notes=tuple(_notes(standings)),
        wide=("not separable from", "way", "bound"),
    )


def titles(boards: Sequence[Board]) -> list[str]:
    """Of each board; those of one metric are told apart by what differs in their protocols."""
    names = [_title(board) for board in boards]
    found = []
    for board, name in zip(boards, names, strict=True):
        alike = [flat(json.loads(b.protocol)) for b, other in zip(boards, names, strict=True) if other == name]
        own = flat(json.loads(board.protocol))
        differ = [field for field in sorted(own) if len({held.get(field) for held in alike}) > 1]
        if board.metric.partition("[")[0] in SPEEDS and "device" in own and "device" not in differ:
            differ.insert(0, "device")
        told = ", ".join(f"{field} {own[field][:24]}" for field in differ)
        found.append(f"{name}; {told}" if told else name)
    return found


def _title(board: Board) -> str:
    """`digits: FD (digits-cnn)`, `digits: bits/dim, upper bound`."""
    if board.kind:
        return f"{board.dataset}: bits/dim, {KINDS.get(board.kind, board.kind)}"
    name = NAMES.get(base(board.metric), base(board.metric).replace("_", " "))
    features = f" ({variant(board.metric)})" if variant(board.metric) else ""
    return f"{board.dataset}: {name}{features}"


def _finding(title: str, held: Sequence[Place]) -> str:
    first = held[0]
    score = score_text(first.entry.score)
    said = f"{title}: {first.entry.label} ({first.entry.group.name}) leads with {score}"
    if not first.ties:
        others = "the other" if len(held) == 2 else f"each of the {len(held) - 1} others"
        return f"{said}, told apart from {others}."
    return f"{said}; not separable from it: {_ties(first, held, 3)}."


def _table(number: int, title: str, board: Board, held: Sequence[Place]) -> Table:
    first = board.entries[0].score
    likely = bool(board.kind)
    pairs = len(board.entries) * (len(board.entries) - 1) // 2
    intro = (
        f"{_ARROWS.get(first.better, '')}. Protocol: {protocol_told(board.protocol)}. {pairs} pairs, each at 95 %: "
        f"chance alone would give {2 * ALPHA * pairs:.2g} of them an order."
    )
    columns = [Column("Rank"), Column("Model", numeric=False), Column("bits/dim" if likely else _head(board), "mean")]
    columns += [Column("bound" if board.kind == "upper_bound" else "way", numeric=False)] if likely else []
    columns += [Column("seeds", numeric=False), Column("against the first")]
    columns += [Column("not separable from", numeric=False), Column("measured by", numeric=False)]
    lines = [_line(None, e, held, likely) for e in board.floor]
    lines += [replace(_line(p, p.entry, held, likely), more=p.position > FIRST) for p in held]
    return Table(f"board-{number}", title, intro[0].upper() + intro[1:], tuple(columns), tuple(lines))


def _head(board: Board) -> str:
    return NAMES.get(base(board.metric), base(board.metric).replace("_", " "))


def _line(place: Place | None, entry: Entry, held: Sequence[Place], likely: bool) -> Line:
    score, group = entry.score, entry.group
    data = [_rank(place), Datum(entry.label, entry.label.lower())]
    data += [Datum(score_text(score), score.value, interval_text(score), best=place is not None and place.low == 1)]
    data += [Datum(variant(score.metric))] if likely else []
    data += [Datum(", ".join(map(str, sorted(entry.seeds))), len(entry.seeds))]
    data += [Datum("", None) if place is None or not place.how else Datum(place.against or "–", None, place.how)]
    data += [Datum("" if place is None else _ties(place, held, 1))]
    data += [Datum(group.name, group.name, f"{group.commit}, {group.device}" + _torch(score, group))]
    return Line(tuple(data), "floor" if place is None else "body", family=entry.row.model.family)


def _torch(score: Score, group: Group) -> str:
    """The library is part of a speed."""
    return f", torch {group.torch or 'unknown'}" if score.unit in SPEED_UNITS else ""


def _rank(place: Place | None) -> Datum:
    """The ranks that are left possible; `floor` for real images."""
    if place is None:
        return Datum("floor")
    if not place.low:
        return Datum("–", place.position)
    text = str(place.low) if place.low == place.high else f"{place.low} – {place.high}"
    return Datum(text, place.position)


def _ties(place: Place, held: Sequence[Place], most: int) -> str:
    """The nearest of those that it is not told apart from; with who measured where two of them share a name."""
    if not place.ties:
        return ""
    near = sorted(place.ties, key=lambda position: (abs(position - place.position), position))
    names = [held[position - 1].entry for position in near[:most]]
    common = Counter(held[position - 1].entry.label for position in (*place.ties, place.position))
    told = ", ".join(f"{e.label} ({e.group.name})" if common[e.label] > 1 else e.label for e in names)
    return told + (f" and {len(near) - most} more" if len(near) > most else "")


def _unranked(found: Sequence[Unranked]) -> Table | None:
    lines = [
        Line((Datum(u.dataset), Datum(u.metric), Datum(u.entry.label), Datum(u.entry.group.name), Datum(u.why)))
        for u in found
    ]
    columns = tuple(Column(head, numeric=False) for head in ("Data set", "metric", "model", "measured by", "why"))
    return Table("unranked", "Not ranked", "Comparable with nothing here.", columns, tuple(lines)) if lines else None


def _notes(standings: Standings) -> Iterable[str]:
    yield (
        "A board holds one data set and one metric under one protocol. Ranks are those that the measurements leave "
        "possible, each pair at 95 %: by the seeds that both have (Student's t of the differences); with one seed by "
        "the scores' own intervals, which tell of the images drawn and not of another training; by Welch's t where "
        "both have several seeds and share none or one. Of speeds only what differs by more than 10 % is told apart: "
        "two runs are two moments of a machine. What is not told apart is a tie; bold: may be the first."
    )
    yield (
        "Likelihoods are ranked within their kind only. A model with several samplers has a line for each, by the "
        "draw that reports choose (--all-draws: every one). Intervals beside a score are the report's."
    )
    if any(len(board.entries) > MOST for board, _ in standings.boards):
        yield f"Of a board's entries the first {MOST} are tested against each other; those behind have no rank."
    for group in standings.groups:
        if group.repeated:
            yield f"{group.name}: {group.repeated} cells were measured more than once; the newest counts."
    if standings.copies:
        yield f"{standings.copies} records are the same measurement in several folders, and are counted once."
    if standings.unranked:
        yield f"{len(standings.unranked)} scores are comparable with nothing here: the page and the Markdown list them."
    if standings.left_out:
        yield f"Left out, without records: {', '.join(map(str, standings.left_out))}."
    for folder in standings.folders:
        yield from (f"{folder.name}: {problem}" for problem in folder.source.problems[:5])
