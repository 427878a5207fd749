"""Boards: the scores of several people and machines, as far as they may stand in one ranking."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.compare.folders import Folder, commit_of, device_of, told_of
from bench.compare.labels import settings
from bench.gate.records import place_of
from bench.record import Measurement, Record
from bench.report.grouping import SPEED_UNITS, make_sheet, protocol_of, training_of
from bench.report.marks import MIXED, flat
from bench.report.rows import Row, Score, base, likelihoods
from bench.report.source import FLOOR, Source

BITS = "bits_per_dim"
_BOUND_FIELDS = ("dequantisation",)
"""Of a likelihood's protocol: says how a bound is taken, and bounds of one kind may be ranked."""
_IMPLEMENTATION = ("torch",)
"""Of a speed's protocol: part of what is measured, told beside it."""


@dataclass(frozen=True)
class Group:
    """Who measured: one folder, or several of one clean commit on one device, pooled."""

    name: str
    commit: str
    device: str
    torch: str
    source: Source
    repeated: int = 0  # cells that several of its folders hold; the newest counts


@dataclass(frozen=True)
class Entry:
    """A row's score on a board, and the measurements behind it."""

    row: Row
    score: Score
    group: Group
    seeds: Mapping[int, Measurement]

    @property
    def label(self) -> str:
        """The row's name; of what belongs to a training the training's."""
        return self.row.title if next(iter(self.seeds.values())).scope == "train" else self.row.label


@dataclass(frozen=True)
class Board:
    """Entries that may be ranked: one data set, one metric (of likelihoods one kind), one protocol."""

    dataset: str
    metric: str  # its full name; of likelihoods the family
    kind: str  # of likelihoods; else empty
    protocol: str  # canonical JSON
    entries: tuple[Entry, ...]  # without the real images
    floor: tuple[Entry, ...] = ()  # real images of the development split


@dataclass(frozen=True)
class Unranked:
    """A score that may not be ranked, and why."""

    dataset: str
    metric: str
    entry: Entry
    why: str


def groups(folders: Sequence[Folder], families: Collection[str]) -> tuple[list[Group], int]:
    """Pool folders that one clean commit made on one device, by the same protocols.

    families: the metric families whose protocols must agree.

    Returns:
        The groups, and how many records were left out because an earlier folder holds the very same measurement.
    """
    seen, copies = set[tuple[object, ...]](), 0
    pools: list[_Pool] = []
    for folder in folders:
        own = []
        for r in folder.source.records:
            mark = (r.key, str(r.provenance.get("time")), tuple((m.metric, m.value) for m in r.measured))
            copies += mark in seen
            own += [] if mark in seen else [r]
            seen.add(mark)
        if own:
            _pool(pools, folder, own, families)
    return [_group(pool.members) for pool in pools], copies


@dataclass
class _Pool:
    """Folders that are one entry's source."""

    signature: tuple[object, ...]
    protocols: dict[tuple[object, ...], set[str]]  # (cell but for its seed, metric) -> protocols
    members: list[tuple[Folder, list[Record]]]


def _pool(pools: list[_Pool], folder: Folder, records: list[Record], families: Collection[str]) -> None:
    """Add a folder to the first pool that it fits, or to one of its own."""
    protocols: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for r in records:
        for m in r.measured:
            if base(m.metric) in families:
                protocols[place_of(r.cell), m.metric].add(protocol_of(m))
    signature = _signature(folder, records)
    for pool in pools:
        shared = pool.protocols.keys() & protocols.keys()
        if pool.signature == signature and all(pool.protocols[key] == protocols[key] for key in shared):
            pool.members.append((folder, records))
            for key, found in protocols.items():
                pool.protocols.setdefault(key, found)
            return
    pools.append(_Pool(signature, dict(protocols), [(folder, records)]))


def _signature(folder: Folder, records: Sequence[Record]) -> tuple[object, ...]:
    commits = frozenset(map(commit_of, records))
    alone = any(commit == "unknown" or commit.endswith("+") for commit in commits)
    return (folder.name,) if alone else (commits, frozenset(map(device_of, records)))


def _group(members: Sequence[tuple[Folder, list[Record]]]) -> Group:
    newest: dict[tuple[object, ...], Record] = {}
    count = 0
    for _, records in members:
        for r in records:
            key = (*place_of(r.cell), r.cell.seed)
            before = newest.get(key)
            count += before is not None
            if before is None or str(before.provenance.get("time", "")) <= str(r.provenance.get("time", "")):
                newest[key] = r
    records = list(newest.values())
    torch = told_of(f for r in records if (f := flat(dict(r.provenance)).get("versions.torch")) is not None)
    models = {name: info for folder, _ in reversed(members) for name, info in folder.source.models.items()}
    return Group(
        name=", ".join(folder.name for folder, _ in members),
        commit=told_of(map(commit_of, records)),
        device=told_of(map(device_of, records)),
        torch=torch,
        source=replace(members[0][0].source, records=tuple(records), models=models),
        repeated=count,
    )


def boards(
    found: Sequence[Group], families: Collection[str], datasets: Collection[str], all_draws: bool
) -> tuple[list[Board], list[Unranked]]:
    """All boards of these metric families, larger ones of a data set and family first.

    families: such as "fd", "bits_per_dim", in the order of the boards. datasets: only these; empty: all.
    """
    held: dict[tuple[str, str, str, str], list[Entry]] = defaultdict(list)
    unranked: list[Unranked] = []
    for dataset, entry in _entries(found, datasets, all_draws):
        score = entry.score
        family = base(score.metric)
        if family not in families or score.better == "none" or not entry.seeds:
            continue
        if score.mixed:
            unranked.append(Unranked(dataset, score.metric, entry, MIXED))
            continue
        metric, kind = (BITS, score.kind or "unknown kind") if family == BITS else (score.metric, "")
        held[dataset, metric, kind, _core(score)].append(entry)
    made = []
    for (dataset, metric, kind, protocol), entries in held.items():
        fair, odd = _one_protocol(_once(entries, metric == BITS))
        unranked += [Unranked(dataset, e.score.metric, e, why) for e, why in odd]
        floor = tuple({e.score.value: e for e in reversed(fair) if e.row.model.name == FLOOR}.values())
        ranked = tuple(e for e in fair if e.row.model.name != FLOOR)
        if len(ranked) == 1:
            why = f"alone under its protocol: {protocol_told(protocol)}"
            unranked.append(Unranked(dataset, ranked[0].score.metric, ranked[0], why))
        elif ranked:
            made.append(Board(dataset, metric, kind, protocol, ranked, floor))
    order, kinds = list(families), ("", "exact", "upper_bound", "estimate")
    sets = list(dict.fromkeys(board.dataset for board in made))

    def place(board: Board) -> tuple[int, int, int, int]:
        kind = kinds.index(board.kind) if board.kind in kinds else len(kinds)
        return sets.index(board.dataset), order.index(base(board.metric)), kind, -len(board.entries)

    return sorted(made, key=place), unranked


def _entries(found: Sequence[Group], datasets: Collection[str], all_draws: bool) -> Iterator[tuple[str, Entry]]:
    told = settings(r.cell for group in found for r in group.source.records)
    for group in found:
        trained: dict[tuple[object, ...], list[Record]] = defaultdict(list)
        for r in group.source.records:
            if r.cell.draw is None and r.status == "ok":
                trained[r.cell.dataset, training_of(r)].append(r)
        for dataset in group.source.datasets:
            if datasets and dataset not in datasets:
                continue
            sheet = make_sheet(group.source, dataset)
            floor = () if sheet.floor is None else (sheet.floor,)
            for row in (*sheet.models, *floor):
                if row.records and not row.model.is_oracle and (row.shown or all_draws):
                    row = replace(row, variant=told[place_of(row.records[0].cell)])
                    training = trained[dataset, training_of(row.records[0])]
                    for score in (row.scores[metric] for metric in row.scores):
                        yield dataset, Entry(row, score, group, _by_seed(score.metric, [*training, *row.records]))


def _by_seed(metric: str, records: Iterable[Record]) -> dict[int, Measurement]:
    return {r.cell.seed: m for r in records for m in r.measured if m.metric == metric}


def _core(score: Score) -> str:
    """The protocol, without what two entries of a board may differ in."""
    protocol = json.loads(score.protocol)
    loose = _BOUND_FIELDS if base(score.metric) == BITS else _IMPLEMENTATION if score.unit in SPEED_UNITS else ()
    return json.dumps({k: v for k, v in protocol.items() if k not in loose}, sort_keys=True)


def _once(entries: Sequence[Entry], is_likelihood: bool) -> list[Entry]:
    """Of what belongs to a training one entry, not one a draw; of likelihoods the row's leading one of the kind."""
    kept: dict[tuple[object, ...], Entry] = {}
    for e in entries:
        of_training = next(iter(e.seeds.values())).scope == "train"
        draw = None if of_training or e.row.draw is None else (e.row.draw.label(), e.row.samples)
        key = (id(e.group), training_of(e.row.records[0]), draw)
        if is_likelihood and e.score.metric != _leading(e.row, e.score.kind):
            continue
        kept.setdefault(key, e)
    return list(kept.values())


def _leading(row: Row, kind: str | None) -> str:
    return next(score.metric for score in likelihoods(row) if score.kind == kind)


def _one_protocol(entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """Entries of one metric that differ in how a bound is said to be taken: the commonest stay."""
    fair, odd = [], []
    usual = {
        metric: Counter(_strict(e.score) for e in entries if e.score.metric == metric).most_common(1)[0][0]
        for metric in dict.fromkeys(e.score.metric for e in entries)
    }
    for e in entries:
        own = _strict(e.score)
        if own == usual[e.score.metric]:
            fair.append(e)
            continue
        a, b = flat(json.loads(own)), flat(json.loads(usual[e.score.metric]))
        differ = (
            f"{n}: {a.get(n, 'not told')}, others {b.get(n, 'not told')}"
            for n in sorted(a.keys() | b.keys())
            if a.get(n) != b.get(n)
        )
        odd.append((e, "other protocol: " + "; ".join(differ)))
    return fair, odd


def _strict(score: Score) -> str:
    return score.protocol if base(score.metric) == BITS else ""


def protocol_told(protocol: str) -> str:
    """`split test, n 1437, extractor.name digits-cnn`; hashes are cut."""
    fields = flat(json.loads(protocol))
    return ", ".join(f"{name} {text[:12] if 'sha256' in name else text}" for name, text in sorted(fields.items()))
